"""The greenswitch engine is an extra: without it its tests are not collected."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("greenswitch") else ["test_greenswitch_*.py"]
