"""What test_library.py asks of a library module, asked of one in a process of its own."""
import unittest

import test_library
from harness import BUILD


class IsolatedLibraryModule(test_library.LibraryModule):
    isolation = "process"
    # The heap of the threads that watch the processes: two mappings each, reused.
    maps_slack = 8

    @classmethod
    def setUpClass(cls) -> None:
        cls.in_process = test_library.LIBRARY
        test_library.LIBRARY = BUILD / "modules" / "finance"

    @classmethod
    def tearDownClass(cls) -> None:
        test_library.LIBRARY = cls.in_process


if __name__ == "__main__":
    unittest.main()
