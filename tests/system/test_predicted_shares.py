"""`plan` says what a module would get of recent traffic, and from whom.

On the demo, four mixes of text and four compositions: the shares that `plan` predicts from what the gates saw
are those that the same texts give once the change is made, to within five points.
"""
from __future__ import annotations

import json
import tempfile
import unittest

from harness import DEMO, Daemon, chimera_client

TEXT = {domain: (DEMO / "train" / "excerpts" / f"{domain}.txt").read_text()
        for domain in ("general", "legal", "bio", "finance")}
PIECE, PIECES = 1200, 2  # bytes that are scored together, and how often, of each domain of a mix
# Loaded, added, and of what the traffic is.
MIXES = (((), "legal", ("legal",)),
         (("legal", "bio"), "finance", ("general", "legal", "bio", "finance")),
         (("legal",), "bio", ("general", "bio")),
         (("finance", "bio"), "legal", ("general", "legal", "finance")))
WITHIN = 0.05


def wish(*modules: str) -> dict:
    return {"top_k": 2, "modules": [{"path": str(DEMO / module)} for module in modules]}


def traffic(client: chimera_client.Client, domains: tuple[str, ...], **options) -> dict[str, float]:
    """Scores the mix; the shares that it gave."""
    mass: dict[str, float] = {}
    tokens = 0
    for domain in domains:
        for at in range(0, PIECE * PIECES, PIECE):
            done = client.score(TEXT[domain][at:at + PIECE], **options).done
            tokens += done["count"]
            for name, module in done["provenance"]["modules"].items():
                mass[name] = mass.get(name, 0.0) + module["share"] * done["count"]
    shares = {name: total / tokens for name, total in mass.items()}
    return shares | {"backbone": 1 - sum(share for name, share in shares.items() if name != "backbone")}


class PredictedShares(unittest.TestCase):
    def daemon(self, *modules: str, **options) -> Daemon:
        return Daemon(DEMO / "backbone", modules=wish(*modules)["modules"], precision="bf16", top_k=2, threads=2,
                      **options)

    def assert_close(self, predicted: dict[str, float], real: dict[str, float], what: str) -> None:
        print(f"{what}: predicted", {n: round(s, 3) for n, s in predicted.items()}, "real",
              {n: round(s, 3) for n, s in real.items()})
        self.assertEqual(set(predicted), set(real))
        for name, share in real.items():
            self.assertAlmostEqual(predicted[name], share, delta=WITHIN, msg=f"{what}: {name}")

    def test_are_what_the_same_traffic_gives_after_the_change(self) -> None:
        for loaded, added, domains in MIXES:
            with self.subTest(added=added, domains=domains), self.daemon(*loaded) as daemon, \
                    daemon.client() as client:
                before = traffic(client, domains)
                plan = client.plan(wish(*loaded, added))
                self.assertTrue(plan["accepted"], plan)
                self.assertGreater(plan["share_samples"], 500)
                now = {share["module"]: share["now"] for share in plan["shares"]}
                then = {share["module"]: share["then"] for share in plan["shares"]}
                self.assertEqual(now.pop(added), 0)
                self.assertAlmostEqual(sum(then.values()), 1, places=6)
                self.assert_close(now, before, "now")
                client.apply(wish(*loaded, added))
                self.assert_close(then, traffic(client, domains), f"{added} on {'+'.join(domains)}")
                # Taken out again, it gives back what it had.
                gone = {share["module"]: share["then"] for share in client.plan(wish(*loaded))["shares"]}
                self.assertEqual(gone.pop(added), 0)
                self.assertEqual(set(gone), set(before))

    def test_are_told_by_headers_as_by_loading_and_on_the_command_line(self) -> None:
        with self.daemon("legal") as daemon, daemon.client() as client:
            self.assertNotIn("shares", client.plan(wish("legal", "bio")))  # nobody asked anything yet
            traffic(client, ("general",), modules={"exclude": ["legal"]})
            traffic(client, ("general",), modules={"bias": {"legal": 1.0}})
            self.assertNotIn("shares", client.plan(wish("legal", "bio")), "they chose for themselves")
            traffic(client, ("general",))
            quick = client.plan(wish("legal", "bio"))
            whole = client.plan(wish("legal", "bio"), probe=True)
            self.assertEqual(quick["shares"], whole["shares"])
            self.assertEqual([share["module"] for share in quick["shares"]], ["backbone", "legal", "bio"])
            self.assertNotIn("shares", client.plan(wish("legal", "nowhere")))
            samples = next(part for part in client.stats()["memory"]["parts"] if part["use"] == "gate_samples")
            self.assertEqual(samples["bytes"], 4 << 20)
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(json.dumps(wish("legal", "bio")))
                file.flush()
                told = daemon.cli("plan", file.name).stdout
            bio = quick["shares"][2]["then"]
            self.assertRegex(told, rf"(?m)^bio +0\.0 % +{100 * bio:.1f} % +\+{100 * bio:.1f}$")
            self.assertIn(f"predicted from {quick['share_samples']} samples of recent traffic", told)

    def test_are_not_predicted_where_nothing_is_kept(self) -> None:
        with self.daemon("legal", memory={"gate_samples": "none"}) as daemon, daemon.client() as client:
            traffic(client, ("general",))
            self.assertNotIn("shares", client.plan(wish("legal", "bio")))
            uses = [part["use"] for part in client.stats()["memory"]["parts"]]
            self.assertNotIn("gate_samples", uses)


if __name__ == "__main__":
    unittest.main(verbosity=2)
