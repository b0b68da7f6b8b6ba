# SPDX-License-Identifier: Apache-2.0
"""Results in the form of TAP, on stdout. For the scripts of this folder."""


class Tap:
    def __init__(self):
        self.count = self.failed = 0

    def check(self, name, true, told=""):
        """told: what there was instead."""
        self.count += 1
        self.failed += not true
        print(f"{'ok' if true else 'not ok'} {self.count} - {name}", flush=True)
        if not true:
            print(f"# {str(told)[:600]}", flush=True)

    def all(self, name, faults):
        """One line for a table: ok if there are no faults."""
        self.check(name, not faults, "; ".join(faults))
