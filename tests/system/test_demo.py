"""The shipped demo model on short excerpts: each module helps its own domain, all three together
keep that, general text is left alone, each domain's own module is used most, and withdrawing gives
back the first scores bit for bit. The same inequalities as the table of experts/EVALUATION.md,
which holds the figures of the whole valid sets.
"""
import math
import unittest

from harness import SLOW, SOURCE, Daemon

DOMAINS = ("general", "legal", "bio", "finance")
MODULES = DOMAINS[1:]
EXPERTS = SOURCE / "experts"
MIN_GAIN, MIN_KEPT, MAX_GENERAL_LOSS = 0.12, 0.90, 0.02
SEPARATOR = "\n\n----\n\n"  # as experts/train/make_excerpts.py writes it
# Under sanitizers scoring is some twenty times slower: a sixth of the pieces, which are too few for
# the bounds.
TEXT = {d: (EXPERTS / "train" / "excerpts" / f"{d}.txt").read_text().split(SEPARATOR)[::6 if SLOW > 1
                                                                                      else 1]
        for d in DOMAINS}
few_pieces = unittest.skipIf(SLOW > 1, "too few pieces for a mean")


# Where the same pieces are compared, some of them tell as much as all.
FEW = 4


class Scores:
    """The scores of all pieces of one excerpt, or of every n-th."""

    def __init__(self, client, domain: str, every: int = 1) -> None:
        self.texts = TEXT[domain][::every]
        done = [client.score(text) for text in self.texts]
        self.nats = [d.nats for d in done]
        self.logprobs = [d.logprobs for d in done]
        self.bits = self.bits_of(1)
        tokens = sum(d.count for d in done)
        self.share = {m: sum(d.provenance["modules"][m]["share"] * d.count for d in done) / tokens
                      for m in done[0].provenance["modules"]}

    def bits_of(self, every: int) -> float:
        """Bits per byte of every n-th piece of these."""
        size = sum(len(text.encode()) for text in self.texts[::every])
        return sum(self.nats[::every]) / math.log(2) / size


class DemoModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.daemon = Daemon(EXPERTS / "backbone", precision="bf16", top_k=2, threads=2,
                            serve={"max_context": 1024})
        with cls.daemon.client() as client:
            cls.base = cls.scores(client)
            cls.alone = {}
            for m in MODULES:
                cls.compose(client, m)
                cls.alone[m] = {"general": Scores(client, "general", FEW), m: Scores(client, m)}
            cls.compose(client, *MODULES)
            cls.together = cls.scores(client)
            cls.compose(client)
            cls.again = {d: Scores(client, d, FEW) for d in DOMAINS}

    @classmethod
    def tearDownClass(cls) -> None:
        cls.daemon.__exit__(None, None, None)

    @classmethod
    def compose(cls, client, *modules: str) -> None:
        client.apply({"top_k": 2, "modules": [{"path": str(EXPERTS / m)} for m in modules]})

    @classmethod
    def scores(cls, client) -> dict[str, Scores]:
        return {d: Scores(client, d) for d in DOMAINS}

    @few_pieces
    def test_each_module_helps_its_own_domain(self) -> None:
        for m in MODULES:
            gain = 1 - self.alone[m][m].bits / self.base[m].bits
            print(f"{m}: {100 * gain:.1f} % fewer bits per byte")
            self.assertGreaterEqual(gain, MIN_GAIN, m)

    @few_pieces
    def test_readme_states_the_gains(self) -> None:
        gains = [f"{100 * (1 - self.alone[m][m].bits / self.base[m].bits):.1f}" for m in MODULES]
        self.assertIn(f"the modules gain {gains[0]}, {gains[1]} and {gains[2]} %",
                      " ".join((SOURCE / "README.md").read_text().split()))

    @few_pieces
    def test_all_three_keep_the_gain(self) -> None:
        for m in MODULES:
            base = self.base[m].bits
            kept = (base - self.together[m].bits) / (base - self.alone[m][m].bits)
            print(f"{m}: {100 * kept:.0f} % of the gain kept")
            self.assertGreaterEqual(kept, MIN_KEPT, m)

    @few_pieces
    def test_general_text_is_left_alone(self) -> None:
        base = self.base["general"]
        for bits, of_base in ((self.together["general"].bits, base.bits),
                              *((self.alone[m]["general"].bits, base.bits_of(FEW))
                                for m in MODULES)):
            loss = bits / of_base - 1
            print(f"general: {100 * loss:+.1f} %")
            self.assertLessEqual(loss, MAX_GENERAL_LOSS)

    def test_own_module_has_the_largest_share(self) -> None:
        for m in MODULES:
            share = self.together[m].share
            print(m, {n: round(s, 3) for n, s in share.items()})
            self.assertEqual(max(MODULES, key=lambda n: share[n]), m)

    def test_withdrawing_is_bitwise(self) -> None:
        for d in DOMAINS:
            self.assertEqual(self.again[d].nats, self.base[d].nats[::FEW])
            self.assertEqual(self.again[d].logprobs, self.base[d].logprobs[::FEW])


class OnlyABackbone(unittest.TestCase):
    """A deployment that says backbone.path alone: modules route as they were fitted."""

    def test_a_loaded_module_brings_its_top_k_and_takes_it_along(self) -> None:
        text = TEXT["legal"][0]
        with Daemon(EXPERTS / "backbone", precision="bf16", top_k=2) as daemon, \
                daemon.client() as client:
            client.load(EXPERTS / "legal")
            stated = client.score(text)
        with Daemon(EXPERTS / "backbone", precision="bf16") as daemon, daemon.client() as client:
            self.assertEqual(client.info()["top_k"], 1)
            alone = client.score(text)
            self.assertEqual(client.load(EXPERTS / "legal")["notes"], [])
            self.assertEqual(client.info()["top_k"], 2)
            loaded = client.score(text)
            self.assertEqual(loaded.logprobs, stated.logprobs)
            self.assertLess(loaded.nats, (1 - MIN_GAIN) * alone.nats)
            client.unload("legal")
            self.assertEqual(client.score(text).logprobs, alone.logprobs)


if __name__ == "__main__":
    unittest.main()
