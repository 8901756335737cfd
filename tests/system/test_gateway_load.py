"""Many streams and connections at once: what each costs the gateway, and that slow ones cost nobody else.

A short form of bench/gateway_load.py, which measures; here nothing depends on how fast anything is.
"""
import sys
import unittest

from harness import BUILD, MEASURES_MEMORY, SLOW, SOURCE

sys.path.insert(0, str(SOURCE / "bench"))
import gateway_load

gateway_load.PATIENCE *= SLOW
STREAMS, IDLE = 200, 400
KIB_PER_STREAM = 64


class GatewayLoad(unittest.TestCase):
    def setUp(self) -> None:
        if gateway_load.descriptors(STREAMS + IDLE) < STREAMS + IDLE:
            self.skipTest("this system grants fewer descriptors than the test needs")
        self.load = gateway_load.Load(BUILD)
        self.addCleanup(self.load.__exit__)
        self.reader = gateway_load.Reader()

    def test_a_stream_costs_little(self) -> None:
        grown = 0.0
        for _ in range(4):  # what an allocator takes once is not a stream's
            before = self.load.gateway.rss_kib()
            peers = self.load.open_streams(STREAMS, self.reader)
            grown = (self.load.gateway.rss_kib() - before) / STREAMS
            self.load.daemon.order("burst", 20, 0, "steady")
            self.assertTrue(self.reader.run(lambda: all(self.reader.events[p] == 21 for p in peers)), "events are lost")
            self.load.end(peers, self.reader)
            if grown <= KIB_PER_STREAM:
                break
        if MEASURES_MEMORY:
            self.assertLessEqual(grown, KIB_PER_STREAM)
        self.assertEqual(self.load.daemon.count()[0], 0)

    def test_who_does_not_read_is_cut_off_and_the_others_miss_nothing(self) -> None:
        silent = [self.load.gateway.connect() for _ in range(IDLE)]
        peers = self.load.open_streams(20, self.reader)
        self.assertEqual(self.load.cut_off(5, self.reader), 5)
        self.load.daemon.order("burst", 50, 0, "steady")
        self.assertTrue(self.reader.run(lambda: all(self.reader.events[p] == 51 for p in peers)))
        self.load.end(peers, self.reader)
        for peer in silent:
            peer.close()


if __name__ == "__main__":
    unittest.main()
