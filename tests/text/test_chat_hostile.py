"""Templates that try to break out, to hang or to eat memory. Each ends in a ChatTemplateError, and soon."""

from __future__ import annotations

import contextlib
import threading
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.errors import ChatTemplateError, ChatTemplateMissing
from paddock.text.chat import ChatTemplate
from paddock.text.template_budget import Budget, BudgetExceeded

MESSAGES = [{"role": "user", "content": "hello"}]

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}",
    "{{ messages['__class__'] }}",
    "{{ messages|attr('__class__') }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ [messages]|map('attr', '__class__')|list }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__func__.__globals__ }}",
    "{{ strftime_now.__self__ }}",
    "{{ range.__init__ }}",
    "{{ dict.__base__ }}",
    "{{ dict.fromkeys('ab') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(a=1).__class__.__init__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__ }}",
    "{{ loop.__init__ }}{% for x in messages %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% for x in messages %}{{ loop._iterable }}{{ loop._undefined.__mro__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m.__init__ }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ '{0.__class__.__init__.__globals__}'.format('x') }}",
    "{{ '{a[__class__]}'.format(a='x') }}",
    "{{ '{0!r:>5}'['format']('x', messages) }}",
    "{{ '{0.__class__}'|format('x') }}{{ ('{0.__class__}'.format)('x') }}",
    "{{ '{a.__class__}'.format_map({'a': 'x'}) }}",
    "{{ ['{0.__class__}'.format]|map('first')|list }}{{ '{0.__class__}'.format(0) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages[0].setdefault('a', 1) }}",
    "{{ messages.clear() }}",
    "{{ messages.sort() }}",
    "{{ ''.maketrans({}) }}",
    "{{ ''.encode('utf-8') }}",
    "{{ (1).to_bytes(10, 'big') }}",
    "{{ undefined_function() }}",
    "{{ messages() }}",
    "{{ 'x'() }}",
    "{% import 'os' as os %}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{% from 'x' import y %}",
    "{% block x %}{% endblock %}",
    "{% autoescape true %}{{ messages }}{% endautoescape %}",
    "{{ messages|pprint }}",
    "{{ messages|random }}",
    "{% set messages.x = 1 %}",
    "{% do messages.append(1) %}",
]

ENDLESS = [
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}" * 15 + "{% endfor %}" * 15,
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(10**30) %}{% endfor %}",
    "{% for i in range(100000) if false %}{% endfor %}" * 60,
    "{% for i in range(100000) %}{{ messages }}{% endfor %}",
    "{% for i in range(100000) %}" + "x" * 5000 + "{% endfor %}",
    "{% set x %}{% for i in range(100000) %}" + "x" * 5000 + "{% endfor %}{% endset %}",
    "{% for i in range(99999) %}{% if i %}" + "{{ messages[0].role }}" * 50 + "{% endif %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f() %}" + "a" * 100 + "{% endmacro %}{% for i in range(100000) %}{{ f() * 1000 }}{% endfor %}",
    "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{% for x in messages recursive %}{{ loop([x, x]) }}{% endfor %}",
    "{{ range(100000)|map('string')|map('length')|list|sum }}" * 40,
    "{% for i in range(100000) %}{{ range(100000)|list|length }}{% endfor %}",
    "{% for i in range(100000) %}{% if range(100000)|select('none')|list %}{% endif %}{% endfor %}",
]

HUGE = [
    # large texts
    "{{ 'x' * 10**9 }}",
    "{{ 10**9 * 'x' }}",
    "{{ ('x' * 1000000) * 1000 }}",
    "{{ [0] * 10**9 }}",
    "{{ (0,) * 10**9 }}",
    "{{ 'x'.ljust(10**9) }}{{ 1 }}",
    "{{ 'x'.rjust(10**9) }}",
    "{{ 'x'.zfill(10**9) }}",
    "{{ 'x'.center(10**9) }}",
    "{{ 'x'|center(10**9) }}",
    "{{ 'x'.expandtabs(10**9) }}",
    "{{ 'x'|indent(10**9) }}",
    "{{ ('x\\n' * 1000)|indent('x' * 100000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%.1000000000f' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%1000000000s'|format('x') }}",
    "{{ '{:1000000000d}'.format(1) }}",
    "{{ '{:>{w}}'.format('x', w=10**9) }}",
    "{{ '{:.1000000000f}'.format(1.0) }}",
    "{{ ('%(a)s' * 100000) % {'a': 'x' * 100000} }}",
    "{{ ('{0}' * 100000).format('x' * 100000) }}",
    "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "{{ ('x' * 100000).join(range(100000)|map('string')) }}",
    "{{ range(100000)|join('x' * 100000) }}",
    "{{ [1]|tojson(indent=10**9) }}",
    "{{ [1, 2]|tojson(separators=('x' * 1000000, 'y')) }}",
    "{{ messages|tojson(indent='x' * 1000000) }}",
    "{{ messages|batch(10**9, 'x')|list }}",
    "{{ messages|slice(10**9)|list }}",
    "{{ 'x'|wordwrap(1)|urlize }}",
    "{{ strftime_now('%c' * 1000000) }}",
    "{{ strftime_now('%1000000000c' * 1000) }}",
    # growth by doubling
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
    "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}"
    "{{ ns.x|tojson }}",
    "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[{'k': 1}]) %}{% for i in range(60) %}"
    "{% set ns.x = (ns.x + ns.x)|groupby('k')|list %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|join %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}"
    "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}{% endfor %}{{ ns.x }}",
    # large numbers
    "{{ 2 ** (10**9) }}",
    "{{ 10 ** (10 ** 10) }}",
    "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
    "{{ ('f' * 1000000)|int(base=16) % 7 }}",
    "{{ ('9' * 1000000)|float }}",
    "{{ 5|round(-1000000000) }}",
    "{{ 5|round(1000000000, 'floor') }}",
    "{{ [[1]] * 1000 | sum(start=[]) }}{{ ([[1]] * 1000)|sum(start=[]) }}",
]

SLOW = [
    # single operations that are slow, and cannot be interrupted
    "{% set a = 'a' * 500000 %}{% for i in range(100000) %}{% if a ~ 'b' == a ~ 'c' %}{% endif %}{% endfor %}",
    "{% set a = 'a' * 900000 %}{% for i in range(100000) %}{% if 'b' in a %}{% endif %}{% endfor %}",
    "{% set a = 'a' * 900000 %}{% for i in range(100000) %}{{ a.rfind('b' ~ a[:400000]) }}{% endfor %}",
    "{{ ('a' * 900000).strip('b' * 500000 ~ 'a') }}",
    "{{ ('a' * 900000)|trim('b' * 500000 ~ 'a') }}",
    "{% set a = range(40000)|list %}{% for i in range(100000) %}{{ a|sort|first }}{% endfor %}",
    "{% set a = range(40000)|list %}{% for i in range(100000) %}{{ a == a[:] }}{% endfor %}",
    "{% set a = range(40000)|list %}{% for i in range(100000) %}{{ a.index(39999) }}{% endfor %}",
    "{% set a = 'a' * 900000 %}{% for i in range(100000) %}{% set b = a[::-1] %}{% endfor %}",
]

BROKEN = [
    "{% for x in messages %}",
    "{{ messages[0].content ",
    "{% endfor %}",
    "{{ }}",
    "{% unknown %}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "[" * 500 + "1" + "]" * 500 + " }}",
    "{% if x %}" * 200 + "{% endif %}" * 200,
    "{{ " + " + ".join(["1"] * 5000) + " }}",
    "{{ " + "9" * 10_000 + " }}",
    "{{ 1e999 }}",
    "{{ 1 / 0 }}",
    "{{ messages[0].content + 1 }}",
    "{{ messages[0].missing.more }}",
    "{{ messages[9].content }}",
    "{{ messages|tojson|nope }}",
    "{{ nothing|tojson }}",
    "{{ messages|length() > 'x' }}",
    "{{ raise_exception('no') }}",
    "{{ raise_exception() }}",
    "{{ '\ud800' }}{{ 1 / 0 }}",
    "{% set a, b = messages %}",
    "x" * (128 * 1024 + 1),
    "{{ a.b }}" * 12_000,
]


def refused(source: str) -> str:
    """Why the template is refused. The clock is out of play: the count of steps must suffice."""
    begin = time.thread_time()
    with pytest.raises(ChatTemplateError) as caught:
        ChatTemplate(source, time_limit=600.0).render(MESSAGES)
    # No measurement, it only tells an end from a hang: the slowest takes about a second of processor time.
    assert time.thread_time() - begin < 12
    return caught.value.problem


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_cannot_reach_beyond_its_messages(source: str) -> None:
    assert refused(source)


@pytest.mark.parametrize("source", ENDLESS, ids=range(len(ENDLESS)))
def test_a_template_that_would_run_for_ever_is_ended(source: str) -> None:
    assert refused(source)


@pytest.mark.parametrize("source", HUGE, ids=range(len(HUGE)))
def test_a_template_that_would_fill_the_memory_is_ended_before_it_does(source: str) -> None:
    tracemalloc.start()
    try:
        assert refused(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


@pytest.mark.parametrize("source", SLOW, ids=range(len(SLOW)))
def test_operations_that_are_slow_in_one_go_are_refused_or_paid_for(source: str) -> None:
    assert refused(source)


@pytest.mark.parametrize("source", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_template_fails_closed_with_a_reason(source: str) -> None:
    assert len(refused(source)) < 700


def test_methods_that_are_not_listed_do_not_exist() -> None:
    source = "{{ ''.encode }}{{ messages.append }}{{ (1).bit_length }}{{ (1.5).hex }}{{ messages[0].update }}"
    assert ChatTemplate(source).render(MESSAGES) == ""


def test_a_key_may_be_called_like_a_forbidden_method() -> None:
    assert ChatTemplate("{{ messages[0].copy }}").render([MESSAGES[0] | {"copy": "mine"}]) == "mine"


def test_the_reason_names_the_line_of_the_template() -> None:
    assert refused("line one\n\n{{ messages[0].role + 1 }}\n").startswith("line 3: TypeError")
    assert "line 2" in refused("line one\n{% nonsense %}\n")


@pytest.mark.parametrize("source", [None, "", "  \n"])
def test_a_model_without_a_template_is_a_case_of_its_own(source: str | None) -> None:
    with pytest.raises(ChatTemplateMissing):
        ChatTemplate(source)


def test_what_cannot_be_done_quickly_is_ended_by_the_clock() -> None:
    """The clock is looked at every 64 payments, so a machine of any speed is bounded."""
    times = iter(range(1000))
    budget = Budget(0, units=10**9, time_limit=5.0, clock=lambda: float(next(times)))

    def work() -> None:
        for _ in range(10_000):
            budget.charge(1)

    with pytest.raises(BudgetExceeded, match="more than 5 s"):
        work()
    assert next(times) <= 8


def test_each_rendering_has_a_budget_of_its_own() -> None:
    source = "{% for i in range(messages[0].content|int) %}{% for j in range(1000) %}{% endfor %}{% endfor %}ok"
    template = ChatTemplate(source, time_limit=600.0)
    small = [{"role": "user", "content": "100"}]
    outcomes: list[str] = []

    def render() -> None:
        outcomes.extend(template.render(small) for _ in range(5))

    threads = [threading.Thread(target=render) for _ in range(3)]
    for thread in threads:
        thread.start()
    with pytest.raises(ChatTemplateError):
        template.render([{"role": "user", "content": "9999"}])
    for thread in threads:
        thread.join()
    assert outcomes == ["ok"] * 15


FRAGMENTS = (
    """
{{ ; }} ;{% ; %};for x in messages;endfor;if ;endif;set x = ;messages;x;[0];.role;|tojson;|join;|list;|first;(;)
range(9);+;~;*;**;%;9;'a';namespace();.format;__class__;.items();loop;[::-1];is string;in;,;{;};:;macro m(x);endmacro
""".strip()
    .replace("\n", ";")
    .split(";")
)


@settings(max_examples=500, deadline=None)
@given(parts=st.lists(st.sampled_from(FRAGMENTS), max_size=14))
def test_any_soup_of_template_syntax_renders_or_is_refused(parts: list[str]) -> None:
    source = "".join(parts) + "."
    with contextlib.suppress(ChatTemplateError):
        assert isinstance(ChatTemplate(source).render(MESSAGES), str)
