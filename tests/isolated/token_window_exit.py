"""The interpreter ends while windows and views of them live everywhere."""

import atexit
import importlib
import sys

TokenWindow = importlib.import_module(
    f"ctxpool._{sys.argv[1]}.token_window"
).TokenWindow


class AtTheEnd:
    def __init__(self):
        self.window = TokenWindow(8, on_evict=self.told)
        self.window.extend(range(100))
        self.view = self.window.view()

    def told(self, tokens):
        self.tokens = tokens

    def __del__(self):
        self.window.extend(range(100))
        assert self.view.tolist() == list(range(92, 100))


owner = AtTheEnd()
sys.owner = AtTheEnd()
view = TokenWindow(8).view()
atexit.register(lambda: owner.window.append(1))
print("fine")
