"""A tool of your own: `tools = ["order_tool:lookup_order"]` in an `[agents.NAME]`, this file beside the configuration.

The docstring is what the model knows of it; the types are what its arguments are checked by.
"""

from typing import Annotated

from pydantic import Field

from dueto import Call, ToolRefused

ORDERS = {4711: "left the house on Monday", 4712: "is waiting for its wheels"}

Number = Annotated[int, Field(ge=1000, le=9999, description="As it is printed on the receipt: four digits.")]


async def lookup_order(number: Number, call: Call) -> str:
    """Say where an order is. Ask for its number first."""
    call.log.info("order_asked_for", caller=call.caller_number)
    if number not in ORDERS:
        raise ToolRefused("there is no order of that number; ask the caller to read it again")
    return f"Order {number} {ORDERS[number]}."
