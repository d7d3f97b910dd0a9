"""`dueto demo`: eight telephone calls through the real gateway, and a page to look at them."""

from dueto.app.demo.run import run_demo

__all__ = ["run_demo"]
