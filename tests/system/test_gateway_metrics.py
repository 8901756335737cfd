"""/metrics of chimera-gateway: what is counted, and that documents, dashboard and alerts name what there is."""
import http.client
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import unittest
from typing import Any

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from gateway import Answer, Gateway
from harness import DEMO, SOURCE, Daemon, wait_for

LABELS = 'gen_ai_operation_name="text_completion",gen_ai_request_model="demo"'
METRIC = re.compile(r"\b(?:chimera|gen_ai|http)_\w+(?=\{|\[| [=>]|\))")


class MetricsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.daemon = Daemon(DEMO / "backbone", precision="bf16", memory={"adapters": "16MiB"}, modules=[{"path": str(SOURCE / "experts" / "legal"), "bias": 0.5}])

    @classmethod
    def tearDownClass(cls) -> None:
        cls.daemon.__exit__(None, None, None)

    def setUp(self) -> None:
        self.gateway = Gateway(self.daemon, limits={"unread_bytes": 1 << 26},
                               models={"aliases": {"brief": {"defaults": {"max_tokens": 2}}}})
        self.client = self.daemon.client()

    def tearDown(self) -> None:
        self.client.close()
        self.gateway.__exit__(*sys.exc_info())

    def complete(self, **more: Any) -> Answer:
        return self.gateway.post("/v1/completions", {"model": "demo", "prompt": "The Borrower shall", "temperature": 0,
                                                     "max_tokens": 6, "ignore_eos": True, **more})

    def begin_long(self) -> http.client.HTTPConnection:
        connection = self.gateway.connect()
        connection.request("POST", "/v1/completions", json.dumps(
            {"model": "demo", "prompt": "The", "stream": True, "ignore_eos": True, "max_tokens": 1900}),
            {"Authorization": f"Bearer {self.gateway.admin}", "Content-Type": "application/json"})
        connection.getresponse()
        return connection

    def metrics(self) -> dict[str, float]:
        answer = self.gateway.get("/metrics")
        self.assertTrue(answer.headers["content-type"].startswith("text/plain; version=0.0.4"))
        lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}

    def test_requests_are_counted_by_how_they_end(self) -> None:
        usage = self.complete().json["usage"]
        self.complete(stream=True)
        self.assertEqual(self.complete(prompt="x" * 5000).status, 400)
        connection = self.begin_long()
        found = self.metrics()
        self.assertEqual(found["chimera_gateway_requests_in_progress"], 1)
        connection.close()
        gone = f'gen_ai_server_request_duration_seconds_count{{error_type="client_gone",{LABELS}}}'
        wait_for(lambda: self.metrics().get(gone) == 1, "the client that left is counted")
        found = self.metrics()
        self.assertEqual(found["chimera_gateway_requests_in_progress"], 0)
        self.assertEqual(found[f"gen_ai_server_request_duration_seconds_count{{{LABELS}}}"], 2)
        self.assertEqual(found[f"gen_ai_server_time_to_first_token_seconds_count{{{LABELS}}}"], 3)
        self.assertEqual(found[f"gen_ai_server_time_per_output_token_seconds_count{{{LABELS}}}"], 2)
        self.assertEqual(found[f"chimera_queue_seconds_count{{{LABELS}}}"], 2)
        self.assertEqual(found['chimera_tokens_total{principal="admin",type="output"}'], 12)
        self.assertEqual(found['chimera_tokens_total{principal="admin",type="input"}'], 2 * usage["prompt_tokens"])
        route = 'http_request_method="POST",http_response_status_code="{}",http_route="/v1/completions"'
        name = "http_server_request_duration_seconds_count"
        self.assertEqual([found[f"{name}{{{route.format(status)}}}"] for status in (200, 400, 499)], [2, 1, 1])

    def test_labels_are_not_what_a_client_makes_up(self) -> None:
        self.complete(model="demo:legal")
        self.complete(model="brief")
        self.complete(model="gpt-4")
        self.gateway.get("/v1/models/demo:legal")
        self.gateway.get("/made-up")
        self.gateway.get("/v1/models", key="wrong")
        found = self.metrics()
        models = {match[1] for name in found if (match := re.search(r'gen_ai_request_model="([^"]*)"', name))}
        self.assertEqual(models, {"demo", "brief"})
        routes = {match[1] for name in found if (match := re.search(r'http_route="([^"]*)"', name))}
        self.assertEqual(routes, {"/v1/completions", "/v1/models/{id}", "refused"})
        refused = 'http_request_method="_OTHER",http_response_status_code="{}",http_route="refused"'
        self.assertEqual([found[f"http_server_request_duration_seconds_count{{{refused.format(status)}}}"]
                          for status in (401, 404)], [1, 1])

    def test_modules_have_their_share(self) -> None:
        answer = self.complete().json
        found = self.metrics()
        self.assertAlmostEqual(found['chimera_module_tokens_total{module="legal"}'],
                               6 * answer["chimera"]["modules"]["legal"], places=9)
        self.assertGreater(found['chimera_module_routed_total{module="legal"}'], 0)
        self.assertEqual(found['chimera_module_bias{module="legal"}'], 0.5)
        self.assertEqual(found["chimera_daemon_epoch"], self.client.info()["epoch"])

    def test_the_daemon_counts_by_buckets(self) -> None:
        names = {"queue": "queue", "prefill": "prefill", "first_token": "time_to_first_token", "inter_token": "inter_token",
                 "step": "step", "request": "request"}

        def totals() -> dict[str, int]:
            latency = self.client.stats()["engine"]["latency_seconds"]
            self.assertEqual(latency["le"], sorted(set(latency["le"])))
            self.assertTrue(all(len(latency[name]["counts"]) == len(latency["le"]) + 1 for name in names))
            return {name: sum(latency[name]["counts"]) for name in names}

        before = totals()
        self.complete(max_tokens=6)
        self.client.score("The Borrower shall")  # not by the gateway: counted all the same
        self.client.embed("The Borrower shall")
        after = totals()
        grown = {name: after[name] - before[name] for name in names}
        steps = grown.pop("step")
        self.assertEqual(grown, {"queue": 3, "prefill": 3, "first_token": 1, "inter_token": 5, "request": 3})
        self.assertGreaterEqual(steps, 8)
        latency, found = self.client.stats()["engine"]["latency_seconds"], self.metrics()
        for name, shown in names.items():
            so_far = 0
            for end, count in zip([*latency["le"], math.inf], latency[name]["counts"], strict=True):
                so_far += count
                bucket = {float(match[1]): value for key, value in found.items()
                          if (match := re.fullmatch(rf'chimera_daemon_{shown}_seconds_bucket{{le="([^"]*)"}}', key))}
                self.assertEqual(bucket[end], so_far)
            self.assertEqual(found[f"chimera_daemon_{shown}_seconds_count"], so_far)
            self.assertAlmostEqual(found[f"chimera_daemon_{shown}_seconds_sum"], latency[name]["sum"], places=5)

    def test_a_daemon_that_is_away_is_told(self) -> None:
        self.assertEqual(self.gateway.get("/metrics", key=None).status, 401)
        self.assertEqual(self.metrics()["chimera_daemon_up"], 1)
        self.daemon.kill()
        try:
            away = self.metrics()
            self.assertEqual(away["chimera_daemon_up"], 0)
            self.assertNotIn("chimera_daemon_epoch", away)
        finally:
            self.daemon.start()

    def test_document_dashboard_and_alerts_name_the_metrics_that_there_are(self) -> None:
        self.complete()
        told = self.gateway.get("/metrics").body.decode()
        types = dict(line.split()[2:4] for line in told.splitlines() if line.startswith("# TYPE "))
        document = (SOURCE / "docs" / "metrics.md").read_text()
        if promtool := shutil.which("promtool"):  # Debian's package prometheus
            rules = SOURCE / "docs" / "grafana" / "alerts.yaml"
            subprocess.run([promtool, "check", "rules", rules], check=True, capture_output=True)
            judged = subprocess.run([promtool, "check", "metrics"], input=told, text=True, capture_output=True)
            self.assertEqual(judged.returncode, 0, judged.stdout + judged.stderr)
        self.assertEqual(types, dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", document, re.M)))
        dashboard = json.loads((SOURCE / "docs" / "grafana" / "dashboard.json").read_text())
        queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        alerts = yaml.safe_load((SOURCE / "docs" / "grafana" / "alerts.yaml").read_text())
        queries += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
        self.assertGreater(len(queries), 20)
        for query in queries:
            names = METRIC.findall(re.sub(r"\b(by|on) \([^)]*\)", "", query))
            self.assertTrue(names, query)
            for name in names:
                plain = re.sub(r"_(bucket|count|sum)$", "", name)
                histogram = types.get(plain) == "histogram" and plain != name
                self.assertTrue(histogram or types.get(name) in ("counter", "gauge"), f"{name} in {query}")
                self.assertTrue(types.get(name) != "counter" or f"rate({name}" in query, query)


if __name__ == "__main__":
    unittest.main()
