"""What the greenswitch engine is made of; `dueto.legs.greenswitch_engine` is its front."""
