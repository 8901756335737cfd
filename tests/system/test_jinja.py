"""The template interpreter against Jinja2, configured as transformers configures it.

Every snippet is rendered by both: the texts must be equal, and where Jinja2 fails the interpreter
must fail too. A second test makes expressions and whitespace at random from a fixed seed.
"""
import datetime
import json
import random
import subprocess
import unittest
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from harness import BUILD

SNIPPETS_FILE = __file__.replace("test_jinja.py", "jinja_snippets.txt")

NOW = datetime.datetime(2025, 3, 14, 15, 9, 26)

CONTEXT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "  Be brief.\n"},
        {"role": "user", "content": "Grüße <b>&amp;</b> 'a' \"b\" 日本 😀"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "abc", "type": "function",
             "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 3, "f": 1.5}}}]},
        {"role": "tool", "name": "get_weather", "content": [{"type": "text", "text": "sunny"}, {"type": "image"}]},
        {"role": "user", "content": "thanks, </think> bye"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {
        "type": "object", "properties": {"x": {"type": "integer", "enum": [1, 2]}, "y": {"type": ["string", "null"]}},
        "required": []}}}],
    "none_value": None, "yes": True, "no": False, "n": 7, "m": -3, "big": 1234567, "zero": 0, "x": 2.5, "y": -0.75,
    "tiny": 1e-7, "huge": 1e22, "s": "Hello, World", "empty": "", "blank": " \t a b  c \n", "words": ["b", "A", "c", "a"],
    "nums": [3, 1, 2, 3], "mixed": [1, "1", 1.0, True, None, [1], {"k": "v"}], "nested": {"b": 1, "a": {"c": [1, 2]}},
    "pairs": [{"k": "x", "v": 2}, {"k": "y", "v": 1}, {"k": "x", "v": 3}], "text": "line one\n  line two\n\nline four\n",
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "empty_list": [], "empty_dict": {},
    "items": "shadow", "d": {"items": 1, "get": 2, "key": "value", "1": "one"}, "unicode": "ß ﬁ ǅ İ é Ж ς",
}


def environment() -> jinja2.Environment:
    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> str:
            return caller()

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
               sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = NOW.strftime
    return made


ENVIRONMENT = environment()


def peer(template: str, context: dict[str, Any] = CONTEXT) -> tuple[str | None, str]:
    """The text, or None and why there is none."""
    try:
        return ENVIRONMENT.from_string(template).render(**context), ""
    except Exception as problem:  # noqa: BLE001 - whatever Python raises is a failure of the template
        return None, f"{type(problem).__name__}: {problem}"


class Renderer:
    def __init__(self) -> None:
        self.process = subprocess.Popen([BUILD / "tests" / "jinja_render"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __call__(self, template: str, context: dict[str, Any] = CONTEXT) -> tuple[str | None, str]:
        line = json.dumps({"template": template, "variables": json.dumps(context)})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer.get("text"), answer.get("error", "")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def snippets() -> list[str]:
    """Templates of the file beside this one, separated by lines of "----"."""
    with open(SNIPPETS_FILE, encoding="utf-8") as file:
        parts = file.read().split("\n----\n")
    out: list[str] = []
    for part in parts:
        # A part whose first line is "each" holds one template per line.
        if part.startswith("each\n"):
            out += [line for line in part.split("\n")[1:] if line]
        else:
            out.append(part)
    return out


class Comparison(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.render = Renderer()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.render.close()

    def compare(self, template: str, context: dict[str, Any] = CONTEXT) -> bool:
        """True when both gave a text."""
        expected, why = peer(template, context)
        if expected is not None and " at 0x" in expected:
            return False  # Python's address of an object
        found, told = self.render(template, context)
        if expected is None:
            self.assertIsNone(found, f"{template!r}: Jinja2 fails ({why})")
            self.assertIn("line", told)
        elif found is None and ("slice: found" in told or "items: found" in told):
            # Jinja2 folds constant slices to undefined, and `items` fails only once it is gone through.
            return False
        else:
            self.assertEqual(found, expected, f"{template!r}: {told}")
        return expected is not None

    def test_every_snippet(self) -> None:
        succeeded = 0
        for template in snippets():
            with self.subTest(template=template):
                succeeded += self.compare(template)
        self.assertGreater(succeeded, 140)

    def test_random_expressions(self) -> None:
        maker = Maker(random.Random(20250314))
        rendered, differing = 0, []
        for _ in range(3000):
            try:
                rendered += self.compare(maker.template())
            except AssertionError as difference:
                differing.append(str(difference))
        self.assertGreater(rendered, 1000)
        # Jinja2's generators tell a wrong type only when they are gone through, and print their
        # address: such nonsense expressions differ, and are under one in a hundred here.
        self.assertLess(len(differing), 30, "\n".join(differing))

    def test_random_lists_through_the_filters_that_order_and_choose(self) -> None:
        maker = ListMaker(random.Random(20250611))
        rendered = 0
        for _ in range(4000):
            context, template = maker.values(), maker.template()
            with self.subTest(template=template, context=context):
                rendered += self.compare(template, context)
        self.assertGreater(rendered, 2000)

    def test_integers_beyond_64_bits_stay_as_they_are(self) -> None:
        numbers = [2**63 - 1, 2**63, 2**64, 2**64 - 1, -2**63, -2**63 - 1, 10**30, -10**30, 5, -1, 0.5, 1e19, -1e19,
                   1e300, True]
        context = {"v": numbers, "pairs": [{"k": number} for number in numbers], "objects": {"n": 2**64, "m": -2**63 - 1},
                   "text": "-18446744073709551617", "zeros": "00018446744073709551616"}
        templates = ["{{ v }}", "{{ v|tojson }}", "{{ objects }}", "{{ objects|tojson(indent=2) }}", "{{ v|join(' ') }}",
                     "{{ v|sort }}", "{{ v|sort(reverse=true) }}", "{{ v|unique|list }}", "{{ v|min }} {{ v|max }}",
                     "{{ pairs|sort(attribute='k')|map(attribute='k')|list }}", "{{ objects|dictsort(by='value') }}",
                     "{{ pairs|groupby('k')|map(attribute='grouper')|list }}", "{{ v|map('string')|list }}",
                     "{{ v|map('int')|list }}", "{{ v|map('float')|list }}", "{{ v|map('abs')|list }}",
                     "{{ v|select('integer')|list }}", "{{ v|select('number')|list }}", "{{ v|select('float')|list }}",
                     "{{ v|map('round')|list }}", "{{ text|int }} {{ zeros|int }} {{ 1e22|int }} {{ -1e19|int }}",
                     "{% for n in v %}{{ '%s|%d|%5d' % (n, n, n) }} {{ '{}|{:d}'.format(n, n|int) }} {{ n ~ '' }};{% endfor %}",
                     "{% for n in v %}{{ '%30d|%-30d|%030d|%+d' % (n, n, n, n) }} {{ '{:30,}'.format(n|int) }};{% endfor %}",
                     "{{ {v[2]: 'a'}[v[2]] }} {{ v[2] in v }} {{ v[2] in {1: 2} }}", "{{ +v[2] }}",
                     "{% if v[2] %}yes{% endif %} {{ v[2] is sameas(v[2]) }}"]
        templates += [f"{{{{ v[{a}] {op} v[{b}] }}}}" for a in range(len(numbers)) for b in range(len(numbers))
                      for op in ("<", "<=", "==", "!=", ">", ">=")]
        for template in templates:
            with self.subTest(template=template):
                self.assertTrue(self.compare(template, context))

    def test_integers_of_any_size_are_computed_with(self) -> None:
        numbers = ["18446744073709551616", "-9223372036854775809", "9223372036854775807", "-9223372036854775808",
                   "-(10**30)", "-7", "0", "-1", "2.5", "true", "0xffff_ffff_ffff_ffff_ff",
                   "0b1" + "0" * 70, "0o7777777777777777777777777", "9007199254740993"]
        templates = [f"{{{{ ({a}) {op} ({b}) }}}}" for a in numbers for b in numbers
                     for op in ("+", "-", "*", "/", "//", "%", "==", "<")]
        templates += [f"{{{{ ({a}) ** {b} }}}}" for a in numbers for b in (0, 1, 2, 5, 64, -1, 100)]
        templates += [f"{{{{ {form.replace('N', '(' + number + ')')} }}}}" for number in numbers for form in (
            "-N", "+N", "N is odd", "N is even", "N is divisibleby 3", "N|abs", "N|round", "N|round(2, 'floor')",
            "N|int|round(-3)", "N|int|round(-19)", "N|round(0, 'ceil')", "N|float", "N|int", "N|string|length", "N|tojson",
            "[N, 1, N]|sum", "[1, 2, 3][:N|int]", "[1, 2, 3][N|int:]", "[1, 2, 3][::N|int]", "'abc'[-3:N|int]", "'%d %x'|format(N|int, 5)")]
        templates += ["{{ 2**4000 }}", "{{ 1e308 * 10**10 }}", "{{ (10**400) / (10**399) }}", "{{ (10**400) / 3 }}",
                      "{{ (10**400) * 1.5 }}", "{{ 10**400 > 1e308 }}", "{{ -(10**400) < -1e308 }}", "{{ 0**(2**64) }}",
                      "{{ (-1)**(2**64) }}", "{{ 1**(2**64 + 1) }}", "{{ 2**100 / 3**60 }}", "{{ 'ab' * 2**64 }}",
                      "{{ [1, 2][2**64] }}", "{{ 1_000_000_000_000_000_000_000 }}", "{{ 18446744073709551616 in [2**64] }}",
                      "{{ {2**64: 'a'}[18446744073709551616] }}", "{% for i in range(2**64) %}{% endfor %}",
                      "{{ 18446744073709551616 is integer }}"]
        maker = random.Random(64)
        for _ in range(500):
            a, b = (maker.randrange(-2**maker.randrange(1, 200), 2**maker.randrange(1, 200)) for _ in range(2))
            templates.append(f"{{{{ ({a}) {maker.choice(['+', '-', '*', '/', '//', '%'])} ({b}) }}}}")
        for template in templates:
            with self.subTest(template=template):
                self.compare(template, {})

    def test_integers_grow_no_further_than_python_prints_them(self) -> None:
        for template in ("{{ 2**100000 }}", "{{ 10**4300 }}", "{{ 9**(9**(9**9)) }}", "{{ (10**4000) * (10**4000) }}",
                         "{{ 1" + "0" * 4300 + " }}"):
            with self.subTest(template=template[:40]):
                found, told = self.render(template, {})
                self.assertIsNone(found)
                self.assertIn("more than 4300", told)

    def test_random_whitespace(self) -> None:
        maker = random.Random(7)
        pieces = ["a", " ", "  ", "\n", "\r\n", "\t", "{{ n }}", "{{- n }}", "{{ n -}}", "{{- s -}}", "{% if yes %}",
                  "{%- if yes %}", "{%+ if yes %}", "{% if yes -%}", "{% if no +%}", "{# c #}", "{#- c -#}", "{#+ c +#}",
                  "{% raw %} {{ x }} {% endraw %}", "{%- raw -%} {% y %}\n{%- endraw -%}", "}}", "{", "%", "é"]
        for _ in range(2000):
            template, opened = "", 0
            for _ in range(maker.randrange(1, 12)):
                piece = maker.choice(pieces)
                opened += piece.lstrip("{%+- ").startswith("if")
                template += piece
                if opened and maker.random() < 0.4:
                    template += maker.choice(["{% endif %}", "{%- endif -%}", "\n  {% endif %}\n", "{%+ endif %}"])
                    opened -= 1
            template += "{% endif %}" * opened
            self.compare(template)


class ListMaker:
    """Lists of values of one kind or mixed, and the filters that order, group and choose."""

    KINDS = {"none": [None], "words": ["b", "A", "a", "B", "", "é", "É"], "numbers": [2, 1.0, 1, 0, -3, 2.5, True, False],
             "lists": [[1, 2], [1], [], [None], ["a"]], "dicts": [{}, {"a": 1}, {"a": 2, "b": "x"}, {"a": None}]}
    ITEMS = [{"a": 1, "b": "x"}, {"a": 1, "b": "X"}, {"a": 2}, {"b": "y"}, {"a": None}, {"a": None, "b": None}, {},
             {"a": {"c": 1}}, {"a": {"c": 2}, "b": "x"}, {"a": "x"}, {"a": "X"}, {"a": [2]}, {"a": [1, 2]}]
    ATTRIBUTES = ["'a'", "'b'", "'a,b'", "'b,a'", "'a.c'", "'a.0'", "0", "'a.c,b'", "'q'"]

    def __init__(self, source: random.Random) -> None:
        self.random = source

    def values(self) -> dict[str, Any]:
        kind = self.random.choice(list(self.KINDS))
        pool = self.KINDS[kind] if self.random.random() < 0.7 else sum(self.KINDS.values(), [])
        keys = self.random.sample(["b", "A", "a", "c", "B"], self.random.randrange(6))
        items = self.ITEMS if self.random.random() < 0.4 else self.random.sample(self.ITEMS, 3)
        return {"v": self.random.choices(pool, k=self.random.randrange(6)),
                "o": self.random.choices(items, k=self.random.randrange(6)),
                "d": {key: self.random.choice(pool) for key in keys}}

    def some(self, *arguments: str) -> str:
        """Some of `arguments`, in parentheses."""
        return "(" + ", ".join(a for a in arguments if a and self.random.random() < 0.5) + ")"

    def template(self) -> str:
        pick = self.random.choice
        attribute = pick(self.ATTRIBUTES)
        by = f"attribute={attribute}"
        case, reverse = pick(["case_sensitive=true", "case_sensitive=false"]), pick(["reverse=true", "reverse=false"])
        source = pick(["v", "v", "o", "o", "d", "d.values()", "d.items()"])
        by_part = pick(["", "by='value'", "by='key'"])
        fill = pick(["", ", none", ", 0"])
        test = pick(["", ", 'defined'", ", 'none'", ", 'equalto', 1"])
        of_items = pick(["", "('string')", "('none')", "('in', [1, 'a'])"])
        default, grouped = pick(["", ", default=1", ", default=none"]), pick(["", ", default=0", ", case_sensitive=true"])
        expression = pick([
            f"{source}|sort{self.some(reverse, case, by)}", f"o|sort({by})", f"v|sort{self.some(reverse, case)}",
            f"{source}|unique{self.some(case, by)}|list", f"{source}|min{self.some(case, by)}",
            f"{source}|max{self.some(case, by)}", f"d|dictsort{self.some(case, by_part, reverse)}",
            f"o|groupby({attribute}{grouped})|list", f"{source}|batch({pick([1, 2, 3])}{fill})|list",
            f"{source}|slice({pick([1, 2, 3])}{fill})|list", f"o|map({by}{default})|list",
            f"v|map('{pick(['string', 'lower', 'length'])}')|list",
            f"o|{pick(['selectattr', 'rejectattr'])}({attribute}{test})|list",
            f"v|{pick(['select', 'reject'])}{of_items}|list", f"o|sum({by})", f"v|sum(start={pick(['0', '[]'])})",
            f"o|join(',', {by})", f"{source}|first", "v|last", f"{source}|list", "v|reverse|list", f"{source}|length"])
        return "{{ " + expression + " }}"


class Maker:
    """Templates at random: expressions over the context, printed, tested and looped over."""

    ATOMS = ["n", "m", "x", "y", "zero", "s", "empty", "blank", "words", "nums", "nested", "none_value", "yes", "no",
             "missing", "mixed", "pairs", "text", "big", "d", "1", "0", "-2", "2.0", "0.1", "'a'", "''", "'o'", "\"l\"",
             "[1, 2]", "['a', 'b']", "{'k': 1}", "(1, 'z')", "none", "true", "false", "messages", "unicode", "'%s|%d'",
             "nested.a", "nested.a.c", "messages[1].content", "words[0]", "empty_list", "empty_dict", "range(4)", "'a b'"]
    FILTERS = ["upper", "lower", "trim", "length", "list", "first", "last", "join(',')", "join", "tojson", "string", "int",
               "float", "abs", "sort", "reverse", "unique", "sum", "min", "max", "title", "capitalize", "default('d')",
               "default('d', true)", "replace('l', 'L')", "round", "round(1)", "items", "dictsort", "tojson(indent=2)",
               "map('upper')", "select", "reject('none')", "select('string')", "map(attribute='k')", "indent(2)", "e",
               "selectattr('k')", "count", "wordcount", "batch(2)", "slice(2)", "center(9)", "truncate(5)", "format(1, 2)"]
    TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "mapping", "iterable", "sequence",
             "boolean", "true", "false", "odd", "even", "callable", "upper", "lower", "eq(1)", "equalto('a')", "lt(3)",
             "in([1, 'a'])", "divisibleby(3)", "ne(none)", "ge(0)", "sameas(none)"]
    METHODS = [".upper()", ".strip()", ".split()", ".split('l')", ".startswith('H')", ".endswith('d')", ".items()",
               ".keys()", ".values()", ".get('a')", ".get('q', 5)", ".replace('o', '0')", ".find('o')", ".title()",
               ".count('l')", ".lstrip('H')", ".rstrip()", ".index(1)", ".join(['p', 'q'])", ".isdigit()", ".splitlines()",
               ".rsplit('l', 1)", ".partition('l')", ".zfill(5)", ".capitalize()", ".swapcase()", ".append(1)"]
    BINARY = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "not in"]

    def __init__(self, source: random.Random) -> None:
        self.random = source

    def expression(self, depth: int = 3) -> str:
        pick = self.random.random()
        if depth == 0 or pick < 0.25:
            return self.random.choice(self.ATOMS)
        inner = self.expression(depth - 1)
        if pick < 0.45:
            return f"({inner})|{self.random.choice(self.FILTERS)}"
        if pick < 0.6:
            return f"({inner}){self.random.choice(self.METHODS)}"
        if pick < 0.7:
            return f"({inner} is {self.random.choice(['', 'not '])}{self.random.choice(self.TESTS)})"
        if pick < 0.75:
            index = self.random.choice(["0", "-1", "1:", ":-1", "::-1", "::2", "'k'", "'a'", "5", "-3:2"])
            return f"({inner})[{index}]"
        if pick < 0.8:
            return f"({inner} if {self.expression(depth - 1)} else {self.expression(depth - 1)})"
        if pick < 0.83:
            return f"(not {inner})"
        return f"({inner} {self.random.choice(self.BINARY)} {self.expression(depth - 1)})"

    def template(self) -> str:
        kind = self.random.random()
        expression = self.expression()
        if kind < 0.6:
            return "{{ " + expression + " }}"
        if kind < 0.75:
            return "{% if " + expression + " %}T{% else %}F{% endif %}"
        if kind < 0.9:
            return ("{% for i in " + expression + " %}[{{ loop.index }}/{{ loop.length }}:{{ i }}]"
                    "{% else %}none{% endfor %}")
        return "{% set v = " + expression + " %}{{ v }}|{{ v is defined }}"


if __name__ == "__main__":
    unittest.main()
