"""Several worker processes behind one control socket: `dueto serve --workers N`.

The parent (`supervisor.py`) accepts the switch's control connections and passes each one on; a worker (`worker.py`) is
a whole gateway that owns its media port and starts the streams of its calls, so that both legs of a call meet in one
process without anything between them.
"""
