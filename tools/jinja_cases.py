#!/usr/bin/env python3
"""Writes tests/data/jinja_cases.json: template snippets and what Python's Jinja2 makes of them.

Needs Jinja2 3.1 (Debian: python3-jinja2; run with /usr/bin/python3).  The environment is the one Hugging Face
transformers gives chat templates.  A case is {source, expected} or {source, error}; all see the same
variables ("vars").  Snippets are the hand-written ones below and products of values with operators, filters,
tests and methods; those whose result holds an address or an integer past 64 bits are left out.

--show N prints N random ones; --all writes every product instead of a sample (for checks by hand)."""
import datetime
import json
import os
import random
import re
import sys

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 7, 26, 12, 0, 0)

VARS = {
    "i": 7, "zero": 0, "neg": -3, "big": 123456789, "f": 2.5, "half": 0.5, "tiny": 1.5e-7, "huge": 1e16, "whole": 3.0,
    "t": True, "n": None, "s": "Hello World", "empty": "", "uni": "Größe Ærø ñ 日本語 😀", "lines": "one\ntwo\n\nthree\r\nfour",
    "html": "<a href=\"x\">T&amp;'s</a>", "num": "42", "fnum": "42.75", "pad": "  \t padded \n ", "word": "foo-bar baz_qux (paren) it's",
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "mixed": [1, "two", 3.0, None, True, [1, 2], {"k": "v"}], "el": [], "nested": [[1, 2], [3, [4, 5]]],
    "d": {"b": 1, "a": 2, "C": 3}, "ed": {}, "deep": {"x": {"y": [10, {"z": "deep"}]}, "items": "shadow", "1": "one"},
    "users": [{"name": "bob", "age": 30, "tags": ["x"]}, {"name": "Alice", "age": 25, "tags": []}, {"name": "carol", "age": 30, "on": True}],
    "messages": [{"role": "system", "content": "sys"}, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}],
}

HAND = [line for line in r'''
{{ 1 + 2 * 3 ** 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** -1 }} {{ 6 / 3 }}
{{ -2 ** 2 }} {{ (-2) ** 2 }} {{ 2 ** 3 ** 2 }} {{ -i }} {{ +i }} {{ - - i }} {{ -2 | abs }} {{ (-2) | abs }}
{{ 1.0 }} {{ 1e3 }} {{ 1.5e-5 }} {{ 1e16 }} {{ 1e15 }} {{ 123456.789 }} {{ 0.1 + 0.2 }} {{ 1e22 }} {{ 1e-4 }} {{ 5e-324 }} {{ 1e308 * 10 }}
{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1_0.5 }} {{ 00 }}
{{ 'a' 'b' "c" }} {{ 'it\'s' }} {{ "q\"q" }} {{ '\n\t\\x\x41\u00e9\U0001F600\101' }} {{ '\d' }}
{{ [1, 'a', 2.0, none, true, (1,), (), [], {}] }} {{ {'a': 1, "b": [1], 3: none} }} {{ (1, 2) }} {{ 1, 2 }}
{{ ["it's", 'q"q', "b'o\"th", 'new\nline', 'tab\t', 'uni é', '\x00\x7f'] }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 > 1 == 1 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 != 2 != 1 }}
{{ 1 in [1, 2] }} {{ 3 not in [1, 2] }} {{ 'ell' in s }} {{ 'b' in d }} {{ 2 in d }} {{ 'z' not in 'abc' }} {{ not 1 in [1] }}
{{ true and 'x' }} {{ false or 'y' }} {{ '' and 1 }} {{ 0 or none }} {{ not 0 }} {{ not not '' }} {{ 1 and 2 or 3 }}
{{ 'yes' if i > 5 else 'no' }} {{ 'x' if false }} {{ ('x' if false) is defined }} {{ 1 if 0 else 2 if 0 else 3 }}
{{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ s[::2] }} {{ s[-3:] }} {{ s[:-3] }} {{ s[10:2:-2] }} {{ s[100:] }} {{ l[1:] }} {{ l[::-1] }}
{{ uni[0:3] }} {{ uni[-1] }} {{ uni[::-1] }} {{ uni | length }} {{ uni[4] }}
{{ l[99] }}|{{ l[99] is defined }}|{{ d.zzz }}|{{ d['zzz'] is undefined }}|{{ zzz }}|{{ zzz is defined }}
{{ zzz.a }}
{{ zzz['a'] }}
{{ d.zzz.a }}
{{ n.a }}|{{ n['a'] is defined }}|{{ i.a }}|{{ i[0] }}
{{ zzz + 1 }}
{{ 1 + zzz }}
{{ zzz ~ 'a' ~ 1 ~ none ~ 1.5 ~ true ~ [1] }}
{{ zzz() }}
{{ s() }}
{{ zzz == yyy }} {{ zzz == none }} {{ zzz == '' }} {{ zzz != 1 }}
{{ zzz < 1 }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ none + 1 }}
{{ [1] + (1,) }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 1.0 // 0 }}
{{ 'a' * 3 }} {{ 3 * 'ab' }} {{ [1] * 2 }} {{ 2 * (1, 2) }} {{ 'a' * -1 }}| {{ 'a' * true }}
{{ '%s-%d-%5.2f-%x-%r-%%' % ('a', 3, 2.5, 255, 'q') }} {{ '%05d|%-5d|%+d|%5s|%-5s|' % (42, 42, 42, 'ab', 'ab') }} {{ '%(a)s' % {'a': 1} }}
{{ '%s' % 1 }} {{ '%s' % none }} {{ '%d' % 3.9 }} {{ '%e %g %G' % (12345.678, 0.00001, 1e20) }} {{ '%c%c' % ('a', 66) }} {{ '%.3s' % 'abcdef' }} {{ '%*d' % (5, 42) }}
{{ '%s %s' % ('a',) }}
{{ '%s' % ('a', 'b') }}
{{ '%d' % 'x' }}
{{ '%s' % zzz }}|{{ '%s' % [1] }}|{{ '%s' % [1, 2] }}
{{ '{} {1}' .format(1) }}
{{ '{} {}'.format(1, 'b') }} {{ '{1} {0}'.format('a', 'b') }} {{ '{x} {y[0]} {z.b}'.format(x=1, y=[5], z=d) }} {{ '{{}} {:>5}|{:<5}|{:^5}|{:05d}|{:,}|{:.2f}|{:x}|{:#x}|{:b}|{:e}|{:%}'.format('a', 'b', 'c', 42, 1234567, 3.14159, 255, 255, 5, 12345.678, 0.25) }}
{{ '{!r} {!s:>4} {:*^9} {:+d} {:{}}'.format('a', 'b', 'mid', 5, 'w', 4) }} {{ '{:.3}|{:10.3f}|{:g}|{}'.format('abcdef', 3.14159, 1e10, 1.5) }}
{{ '{:d}'.format('x') }}
{{ '{'.format() }}
{{ '{a}'.format(b=1) }}
{% set x = 1 %}{{ x }}{% set x, y = 2, 3 %}{{ x }}{{ y }}{% set (a, b), c = (1, 2), 3 %}{{ a }}{{ b }}{{ c }}
{% set x = 1, 2 %}{{ x }}{% set x %}block {{ i }}{% endset %}[{{ x }}]{% set x | upper | replace('L', 'l') %}hello{% endset %}[{{ x }}]
{% set a, b = [1] %}
{% set a, b = [1, 2, 3] %}
{% set a, b = 1 %}
{% set a, b = 'xy' %}{{ a }}{{ b }}
{% set ns = namespace(a=1, b='x') %}{% set ns.a = 2 %}{% set ns.c = 3 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns }}{{ ns.zzz is defined }}{{ ns['a'] }}
{% set ns = namespace({'q': 1}, r=2) %}{{ ns.q }}{{ ns.r }}{% set ns.q %}blk{% endset %}{{ ns.q }}
{% set d.x = 1 %}
{% set zzz.x = 1 %}
{% for x in l %}{{ x }}{% endfor %}{{ x is defined }}
{% set x = 'out' %}{% for x in l %}{{ x }}{% endfor %}{{ x }}
{% set v = 0 %}{% for x in l %}{% set v = v + x %}{{ v }},{% endfor %}{{ v }}
{% for x in l %}{% if loop.first %}{% set v = 'first' %}{% endif %}{{ v }}|{% endfor %}
{% for x in l %}{% set i = i + 1 %}{{ i }}|{% endfor %}{{ i }}
{% for x in l %}{{ i }}{% set i = x %}{{ i }}|{% endfor %}{{ i }}
{% for x in l %}{% if x == 1 %}{% set i = 'set' %}{% endif %}{{ i }}|{% endfor %}
{% if true %}{% set q = 1 %}{% endif %}{{ q }}{% if false %}{% set w = 1 %}{% endif %}[{{ w }}]{% if false %}{% set i = 1 %}{% endif %}{{ i }}
{% if i %}{% set i = 1 %}{% elif t %}{% set i = 2 %}{% else %}{% set i = 3 %}{% endif %}{{ i }}
{% for x in l %}{% for x in ls %}{{ x }}{% endfor %}{{ x }}{% endfor %}
{% for x in l %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.first }}/{{ loop.last }}/{{ loop.length }}/{{ loop.depth }}/{{ loop.depth0 }} {% endfor %}
{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}
{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }} {% endfor %}
{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.length }}{{ loop.last }} {% else %}none{% endfor %}
{% for x in l if x > 9 %}{{ x }}{% else %}none{% endfor %} {% for x in [] %}{% else %}e{% endfor %} {% for x in zzz %}{% else %}u{% endfor %}
{% for x in none %}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for k, v in d | dictsort %}{{ k }}{{ v }}{% endfor %}
{% for k, v in l %}{% endfor %}
{% for a, (b, c) in [(1, (2, 3)), [4, [5, 6]]] %}{{ a }}{{ b }}{{ c }} {% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in l %}{% continue %}{% else %}E{% endfor %} {% for x in l %}{% break %}{% else %}E{% endfor %} {% for x in l %}{% if loop.index == 2 %}{% break %}{% endif %}{{ x }}{% else %}E{% endfor %}
{% for x in nested recursive %}[{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}@{{ loop.depth }}{% endif %}]{% endfor %}
{% for x in l %}{{ loop(x) }}{% endfor %}
{% for x in [1,2] %}{% for y in [3,4] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for x in [1,2] %}{% set outer = loop %}{% for y in [3,4] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}
{% for m in messages %}{{ loop.last }}{{ m.role }}{{ m['content'] }}{{ '' if loop.last else ',' }}{% endfor %}
{% for m in messages | selectattr('role', '!=', 'system') %}{{ m.role }}{{ loop.index }}{{ loop.length }}{{ loop.revindex }}{% endfor %}
{% for c in 'héy' %}{{ c }}.{% endfor %} {% for x in (1, 2) %}{{ x }}{% endfor %} {% for x in d.values() %}{{ x }}{% endfor %} {% for x in d.keys() %}{{ x }}{% endfor %}
{% set loop = 1 %}{{ loop }}
{% for x in l %}{% set loop = 1 %}{% endfor %}
{% macro m(a, b='B', c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 2) }} {{ m(1, c=3) }} {{ m(b=5, a=4) }} {{ m() }}
{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }} {{ m(a=1) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}
{% macro m() %}{{ caller() }}|{{ caller() }}{% endmacro %}{% call m() %}x{{ i }}{% endcall %}
{% macro m() %}{{ caller(1, b=2) }}{% endmacro %}{% call(a, b=3) m() %}{{ a }}{{ b }}{% endcall %}
{% macro m() %}{{ caller is defined }}{{ caller }}{% endmacro %}{{ m() }}
{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}
{% macro m(caller=none) %}{{ caller() if caller else 'no' }}{% endmacro %}{{ m() }}{% call m() %}yes{% endcall %}
{% macro fact(n) %}{{ 1 if n < 2 else n * (fact(n - 1) | int) }}{% endmacro %}{{ fact(5) }}
{% set x = 1 %}{% macro m() %}{{ x }}{{ i }}{% endmacro %}{{ m() }}{% set x = 2 %}{{ m() }}
{% macro m() %}{{ x }}{% endmacro %}[{{ m() }}]{% set x = 2 %}{{ m() }}
{% macro m() %}{% set i = 9 %}{{ i }}{% endmacro %}{{ m() }}{{ i }}
{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}{{ m.name }}{{ m.arguments }}{{ m }}
{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}
{% macro m() %}{{ q }}{% endmacro %}{% for q in l %}{{ m() }}{% endfor %}|
{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}
{% macro m(x, x) %}{% endmacro %}
{% macro m(a=1, b) %}{% endmacro %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }} {% with %}{% set z = 1 %}{{ z }}{% endwith %}{{ z is defined }} {% with i = i + 1 %}{{ i }}{% endwith %}{{ i }}
{% with a = 1 %}{% with b = a %}{% set a = 5 %}{{ a }}{{ b }}{% endwith %}{{ a }}{% endwith %}
{% filter upper %}abc {{ s }}{% endfilter %} {% filter replace('a', 'b') | upper %}aaa{% endfilter %}
{% raw %}{{ x }} {% if %} {# c #}{% endraw %} {%- raw -%}  y  {%- endraw -%} z
{# comment #}a{# multi
line #}b {#- trim -#} c
{% generation %}gen {{ i }}{% endgeneration %}!
{% for x in l %}{% generation %}{{ x }}{{ loop.index }}{% endgeneration %}{% endfor %}
{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}
{% print 1, 'a' %} {% print s %}
{% autoescape false %}{{ html }}{% endautoescape %}
{% block b %}in block {{ i }}{% endblock %}
{% if i == 7: %}colon{% endif %}
{% if %}x{% endif %}
{% if i %}
{% endif %}
{% for %}{% endfor %}
{% unknown %}
{{ }}
{{ 1 + }}
{{ (1 }}
{{ [1, 2 }}
{{ 1 2 }}
{{ 'abc }}
{{ 1 | nofilter }}
{{ 1 is notest }}
{% if false %}{{ 1 | nofilter }}{% endif %}ok
{% if true %}{{ 1 | nofilter }}{% endif %}
{{ 1 if true else 2 | nofilter }}
{% if false %}{% for x in l %}{{ x | nofilter }}{% endfor %}{% endif %}
{% include 'x' %}
{% break %}
{% set true = 1 %}
{% endif %}
{{ f(**{'a': 1}) }}
{{ dict(a=1, b=2) }} {{ dict({'a': 1}, b=3) }} {{ dict([('x', 1)]) }} {{ dict() }} {{ range(3) }} {{ range(1, 7, 2) | list }} {{ range(5, 0, -2) | list }} {{ range(0) | list }}
{{ range(3)[1] }} {{ range(10)[2:5] | list }} {{ 3 in range(5) }} {{ range(5) | length }} {{ range(5) | last }} {{ range(5) == range(5) }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }} {% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}c
{{ raise_exception('boom') }}
{{ strftime_now('%Y-%m-%d %H:%M:%S %d %b %Y %B %A %a %j %p %I %y %%') }}
{{ d.items() }} {{ d.keys() }} {{ d.values() }} {{ d.items() | list }} {{ d.get('a') }} {{ d.get('zz') }} {{ d.get('zz', 5) }} {{ d.items() | length }}
{{ deep.items }} {{ deep['items'] }} {{ deep.items() | list }}
{{ deep.x.y[1].z }} {{ deep['x']['y'][0] }} {{ deep.x['y'].0 }} {{ l.0 }} {{ l.index(1) }} {{ l.count(3) }} {{ nested.1.1.0 }}
{{ l.append(4) }}
{% set _ = d.update({'x': 1}) %}
{{ d.pop('a') }}
{{ l.append }}|{{ l.append is defined }}|{{ s.__class__ }}|{{ s.__class__ is defined }}
{{ s.__class__.__name__ }}
{{ l.copy() }} {{ d.copy() }} {{ (1, 2, 1).count(1) }} {{ (1, 2).index(2) }}
{{ l.index(9) }}
{{ users | map(attribute='name') | join(', ') }} {{ users | map(attribute='zz', default='D') | list }} {{ users | map(attribute='tags.0', default='-') | join }} {{ ls | map('upper') | list }} {{ [1.5, 2.5] | map('int') | list }} {{ ['a,b'] | map('replace', ',', ';') | first }}
{{ users | selectattr('on', 'defined') | map(attribute='name') | list }} {{ users | rejectattr('on', 'defined') | list | length }} {{ users | selectattr('age', '>', 26) | map(attribute='name') | list }} {{ users | selectattr('tags') | list | length }} {{ users | selectattr('name', 'equalto', 'bob') | list }}
{{ [1, 2, 3, 4] | select('odd') | list }} {{ [1, 2, 3, 4] | reject('odd') | list }} {{ [0, 1, '', 'a', none] | select | list }} {{ [1, none, 2] | select('number') | sum }} {{ [1, 5] | select('in', [5]) | list }} {{ [0, 1] | reject | list }}
{{ users | map }}
{{ users | map | list }}
{{ users | map('nofilter') | list }}
{{ users | groupby('age') | list | length }} {% for g, us in users | groupby('age') %}{{ g }}:{% for u in us %}{{ u.name }} {% endfor %}{% endfor %} {{ (users | groupby('age'))[0].grouper }}{{ (users | groupby('age'))[1].list | length }}{{ users | groupby('on', default=false) | map('first') | list }}
{{ users | sort(attribute='name') | map(attribute='name') | list }} {{ users | sort(attribute='age,name') | map(attribute='name') | list }} {{ users | sort(reverse=true, attribute='age') | map(attribute='name') | list }} {{ ls | sort }} {{ ls | sort(case_sensitive=true) }} {{ l | sort(reverse=true) }} {{ d | sort }}
{{ [1, 'a'] | sort }}
{{ [none, 1] | sort }}
{{ ls | unique | list }} {{ ls | unique(true) | list }} {{ [1, 1.0, true, 2] | unique | list }} {{ users | unique(attribute='age') | map(attribute='name') | list }}
{{ [[1], [1]] | unique | list }}
{{ l | min }} {{ l | max }} {{ ls | min }} {{ ls | max(case_sensitive=true) }} {{ users | max(attribute='age') }} {{ [] | min is defined }} {{ l | sum }} {{ users | sum(attribute='age') }} {{ [1.5, 2] | sum }} {{ [[1], [2]] | sum(start=[]) }}
{{ ['a'] | sum }}
{{ l | first }} {{ l | last }} {{ [] | first }} {{ [] | first is defined }} {{ '' | last is defined }} {{ s | first }} {{ s | last }} {{ d | first }} {{ d | last }} {{ ls | reverse | list }} {{ s | reverse }} {{ uni | reverse }}
{{ l | map('string') | last }}
{{ l | join }} {{ l | join(', ') }} {{ 'abc' | join('-') }} {{ d | join(',') }} {{ mixed | join('|') }} {{ zzz | join(',') }} {{ users | join(',', attribute='name') }} {{ [1, none, zzz] | join('.') }} {{ l | join(1) }}
{{ none | join }}
{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, 'x') | list }} {{ [1, 2, 3, 4, 5] | slice(3) | list }} {{ [1, 2, 3, 4] | slice(3, 'x') | list }} {{ [] | slice(2) | list }}
{{ d | dictsort }} {{ d | dictsort(true) }} {{ d | dictsort(by='value') }} {{ d | dictsort(false, 'key', true) }} {{ d | items | list }} {{ zzz | items | list }}
{{ [1] | items | list }}
{{ [1] | items is defined }}
{{ 5 | default('x') }} {{ zzz | default('x') }} {{ '' | default('x') }}| {{ '' | default('x', true) }} {{ none | d('x') }} {{ none | d('x', boolean=true) }} {{ zzz | d }}| {{ d.zzz | default('x') }}
{{ 'foo bar baz qux' | truncate(9) }} {{ 'foo bar baz qux' | truncate(9, true) }} {{ 'foo bar baz qux' | truncate(11) }} {{ 'foo bar baz qux' | truncate(11, false, '!', 0) }} {{ uni | truncate(8, true, '…', 0) }}
{{ 'x' | truncate(1) }}
{{ 'hello world foo' | title }} {{ word | title }} {{ uni | title }} {{ 'ALL CAPS' | capitalize }} {{ 'straße' | upper }} {{ 'ΑΣ ΣΑΣ' | lower }} {{ uni | upper }} {{ 'ﬁx' | title }} {{ 'İ' | lower }} {{ 'ǆ' | capitalize }}
{{ 'a\nb\n\nc' | indent }}| {{ 'a\nb' | indent(2, true) }}| {{ 'a\n\nb' | indent(2, blank=true) }}| {{ 'a\nb' | indent('> ', true) }}| {{ 'a\n' | indent }}| {{ '' | indent(3, true) }}|
{{ 'abc' | center(9) }}| {{ 'abcd' | center(9) }}| {{ '  x ' | trim }}| {{ 'xxaxx' | trim('x') }} {{ 'a b  c' | wordcount }} {{ uni | wordcount }} {{ 'x' | string }} {{ 5 | string | length }}
{{ html | escape }} {{ html | e | e }} {{ html | forceescape }} {{ html | safe }} {{ html | striptags }} {{ '<b>x</b>  y <!-- c --> z' | striptags }} {{ ('<' | e) ~ '<' }} {{ ('<' | e) + '<' }} {{ '<' + ('<' | safe) }} {{ ['<' | e] }} {{ ('<%s>' | safe) % '&' }}
{{ 'a b/c?d=é&x' | urlencode }} {{ {'a b': 'c/d', 'e': 1} | urlencode }} {{ [('x', 'y z')] | urlencode }} {{ 5 | urlencode }} {{ {'class': 'a', 'id': none, 'x': 1} | xmlattr }}| {{ {} | xmlattr }}|
{{ 1 | filesizeformat }} {{ 999 | filesizeformat }} {{ 1500 | filesizeformat }} {{ 1500000 | filesizeformat }} {{ 1500000 | filesizeformat(true) }} {{ 1e12 | filesizeformat }} {{ '1024' | filesizeformat }} {{ 0 | filesizeformat }} {{ 1e30 | filesizeformat }}
{{ 42.7 | int }} {{ '42' | int }} {{ '42.9' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ '0x1F' | int(base=16) }} {{ '1F' | int(base=16) }} {{ none | int }} {{ ' 12 ' | int }} {{ '1_0' | int }} {{ true | int }} {{ '-5' | int }} {{ '1e3' | int }} {{ 'z' | int(base=36) }} {{ '0b11' | int(0, 2) }} {{ '12' | int(base=0) }}
{{ '3.5' | float }} {{ 'x' | float }} {{ 'x' | float(1.5) }} {{ 3 | float }} {{ 'inf' | float }} {{ 'nan' | float }} {{ none | float }} {{ '1e3' | float }} {{ ' 2 ' | float }}
{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.567 | round(2) }} {{ 2.5 | round(method='floor') }} {{ 2.1 | round(method='ceil') }} {{ 2.561 | round(1, 'floor') }} {{ 1234 | round(-2) }} {{ 1250 | round(-2) }} {{ 5 | round }} {{ 1234.5 | round(-2) }} {{ 2.675 | round(2) }} {{ 42.55 | round(1, 'ceil') }} {{ -2.5 | round }} {{ 1e20 | round(3) }}
{{ '１２' | int }} {{ '٣.٥' | float }} {{ "'Σ." | lower }} {{ "ΑΣ'" | lower }} {{ "ΑΣ'Α" | lower }} {{ 'Σ' | lower }} {{ "a.Σ b" | lower }}
{{ 2.5 | round(method='x') }}
{{ 'x' | round }}
{{ d | tojson }} {{ mixed | tojson }} {{ uni | tojson }} {{ uni | tojson(ensure_ascii=true) }} {{ "</script>'&\"\\\n\t\x01\x7f" | tojson }} {{ none | tojson }} {{ true | tojson }} {{ 1.0 | tojson }} {{ 1e16 | tojson }} {{ (1, 2) | tojson }} {{ d | tojson(sort_keys=true) }} {{ d | tojson(separators=(',', ':')) }} {{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }} {{ [] | tojson(indent=2) }} {{ '😀' | tojson(true) }}
{{ mixed | tojson(indent=2) }} {{ d | tojson(indent=4) }} {{ d | tojson(indent='\t') }} {{ {} | tojson(indent=2) }} {{ nested | tojson(indent=0) }} {{ d | tojson(indent=1, separators=(', ', ':')) }}
{{ zzz | tojson }}
{{ range(3) | tojson }}
{{ [1] | map('string') | tojson }}
{{ {(1, 2): 3} | tojson }}
{{ {[1]: 2} }}
{{ s | attr('upper') }}{{ 'x' }}
{{ d | attr('a') is defined }} {{ (s | attr('upper'))() }} {{ namespace(a=1) | attr('a') }} {{ s | attr('nope') is defined }}
{{ s.upper() }} {{ s.lower() }} {{ s.swapcase() }} {{ s.title() }} {{ word.title() }} {{ 'aBC dEF'.capitalize() }} {{ 'ß'.casefold() }} {{ s.strip('Hd') }} {{ pad.strip() }}| {{ pad.lstrip() }}| {{ pad.rstrip() }}|
{{ s.split() }} {{ ' a  b '.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b c'.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b c '.rsplit(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a--b'.split('--') }} {{ lines.splitlines() }} {{ lines.splitlines(true) }} {{ 'a b'.split(sep=' ', maxsplit=5) }} {{ ' a b  c '.split(None, 2) }} {{ 'abcabc'.rsplit('b') }}
{{ 'a'.split('') }}
{{ s.startswith('He') }} {{ s.startswith(('x', 'H')) }} {{ s.endswith('ld') }} {{ s.startswith('el', 1) }} {{ s.find('o') }} {{ s.rfind('o') }} {{ s.find('zz') }} {{ s.index('W') }} {{ s.count('l') }} {{ uni.find('日') }} {{ s.find('o', 5) }} {{ s.count('') }} {{ 'aaa'.count('aa') }} {{ s.find('l', -4, -1) }} {{ ''.startswith('') }}
{{ s.index('zz') }}
{{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 1) }} {{ 'abc'.replace('', '-') }} {{ 'abc' | replace('b', 5) }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 5 | replace('5', '6') }} {{ s.replace('zz', '') }}
{{ s.replace('l') }}
{{ '-'.join(['a', 'b']) }} {{ ''.join(ls) }} {{ ', '.join(d) }} {{ '-'.join('abc') }}
{{ ','.join([1]) }}
{{ 'abc'.isalpha() }} {{ '123'.isdigit() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'ABC'.isupper() }} {{ 'abc'.islower() }} {{ 'Abc Def'.istitle() }} {{ '²'.isdigit() }} {{ '½'.isnumeric() }} {{ '²'.isdecimal() }} {{ ''.isalpha() }} {{ 'é'.isalpha() }} {{ 'é'.isascii() }} {{ 'a_1'.isidentifier() }} {{ 'a\n'.isprintable() }} {{ 'A1'.isupper() }} {{ '日'.islower() }}
{{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('bc') }} {{ '42'.zfill(5) }} {{ '-42'.zfill(5) }} {{ 'a'.ljust(3, '*') }} {{ 'a'.rjust(3) }}| {{ 'a'.center(4, '-') }} {{ 'ab'.center(5, '-') }} {{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('x') }} {{ 'abc'.rpartition('x') }} {{ 'a\tb'.expandtabs(4) }}
{{ 'x'.nope() }}
{{ 'x'.upper(1) }}
{{ 'a b c d e f g' | wordwrap(5) }}| {{ 'a very-long-hyphenated word here' | wordwrap(10) }}| {{ 'abcdefghijklmnop' | wordwrap(5) }}| {{ 'abcdefghijklmnop qr' | wordwrap(5, false) }}| {{ 'aa bb\ncc dd ee' | wordwrap(5) }}| {{ 'aa bb cc' | wordwrap(5, wrapstring='|') }}
{{ 'well-known co-operation a-b x--y end -- dash---to' | wordwrap(6) }}| {{ 'see word - and a longword-with-parts' | wordwrap(9) }}| {{ 'a-b-c-d' | wordwrap(3) }}| {{ '   lead  and   gaps' | wordwrap(7) }}| {{ 'x' | wordwrap(1) }}
{{ '%a %r' % ('é😀', 'é') }} {{ '{!a}'.format('é') }} {{ '{:#.0%} {:,.2f} {:_} {:+,} {:e} {:G} {:010.3f} {:<8}| {:^8}| {:=+8d}'.format(0.5, 1234567.891, 1234567, 5000, 1.5, 1e-10, 3.14159, 5, 2.5, 42) }}
{{ '{:,x}'.format(5) }}
{{ '{:#s}'.format('a') }}
{{ 1234567 | round(-3) }} {{ 15.0 | round(-1) }} {{ 25.0 | round(-1) }} {{ 5.0 | round(-1) }} {{ 6.0 | round(-1) }} {{ 4.0 | round(-2) }} {{ 2.764019749721738e+93 | round(-4) }} {{ -0.4 | round(0, 'ceil') }} {{ 99.5 | round(-2) }}
{{ [d, l] | pprint }} {{ 'x' | pprint }} {{ {'b': {'z': 1, 'y': 2}, 'a': 1} | pprint }}
{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ i is sameas i }} {{ none is sameas none }} {{ 1 is sameas true }} {{ 'a' is in 'abc' }} {{ 1 is in [1] }} {{ i is number and s is string }} {{ i is not none }} {{ i is not string }} {{ 5 is eq 5 }} {{ 5 is gt(3) }} {{ 5 is lessthan 6 }} {{ s is defined and zzz is not defined }}
{{ i is divisibleby 7 and true }} {{ 'upper' is filter }} {{ 'nofilter' is filter }} {{ 'odd' is test }} {{ s.upper is callable }} {{ zzz is callable }} {{ range is callable }} {{ s is callable }} {{ namespace() is mapping }} {{ namespace() is iterable }} {{ d.items() is sequence }} {{ d.items() is iterable }} {{ range(3) is sequence }} {{ (l | map('string')) is iterable }} {{ (l | map('string')) is sequence }}
{{ 1 is is }}
{{ [1,2,3][1:] + [4] }} {{ (1,2) + (3,) }} {{ [[1]*2]*2 }} {{ {'a': [1, {'b': (1,)}]} }} {{ {'a': 1}.a }} {{ {'a': 1}['a'] }} {{ [1,2,3]|length + 1 }} {{ 'a' ~ 1 + 2 ~ 'b' }}
{{ [x for x in l] }}
{{ l[1:2, 3] }}
{{ foo.bar }}
{{ s | upper | lower | title | length }} {{ (s | upper).lower() }} {{ s|replace("o","0")|upper }} {{ -1|abs }} {{ 5 - 3|abs }} {{ not true|string }}
{{ messages[0].role }} {{ messages[-1]['content'] }} {{ messages[1:] | length }} {{ (messages | last).role }} {{ messages | map(attribute='role') | unique | join(',') }} {{ messages[0]['role'] == 'system' and messages[0].content }}
{% set m = messages %}{% if m[0].role == 'system' %}{% set sys = m[0].content %}{% set m = m[1:] %}{% endif %}{{ sys }}{{ m | length }}
{%- set ns = namespace(found=false, idx=-1) -%}{%- for m in messages[::-1] -%}{%- if m.role == 'user' and not ns.found -%}{%- set ns.found = true -%}{%- set ns.idx = loop.index0 -%}{%- endif -%}{%- endfor -%}{{ ns.found }}{{ ns.idx }}
{{ html.split('>')[-1].lstrip('\n') }}{{ 'a<think>b</think>c'.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') }}
{{ "%s" | format('x') }} {{ "%s %s" | format('x', 1) }} {{ "%(a)s" | format(a=1) }} {{ "x" | format }}
{{ (1).__class__ }}|{{ [].__len__ }}|{{ ''.__doc__ is defined }}
{{ 9223372036854775807 }} {{ -9223372036854775807 - 1 }}
{{ 1 if zzz else 2 }} {{ zzz or 'dflt' }} {{ zzz and 1 }}| {{ not zzz }} {{ zzz is none }} {{ zzz | length }} {{ zzz | list }} {{ 'a' in zzz }} {{ zzz | upper }}| {{ zzz | trim }}| {{ zzz | string }}|
{{ zzz in 'abc' }}
{{ 1 in 'abc' }}
{{ 1 in 5 }}
{{ zzz | int }}
{{ zzz | abs }}
{{ zzz | round }}
{{ zzz | first is defined }} {{ zzz | last is defined }} {{ zzz | sort }} {{ zzz | sum }} {{ zzz | map('upper') | list }} {{ zzz | reverse | list }} {{ zzz | batch(2) | list }} {{ zzz | unique | list }} {{ zzz | wordcount }} {{ zzz | escape }} {{ zzz | capitalize }} {{ zzz | replace('a', 'b') }} {{ zzz | urlencode }}
{{ {} | length }} {{ {'a': 1} == {'a': 1.0} }} {{ [1, [2]] == [1, [2]] }} {{ (1,) == [1] }} {{ 'a' == 'a' }} {{ none == false }} {{ {1: 'i', 1.0: 'f', true: 'b'} }}
{{ {'a': 1, **d} }}
{{ dict(**d) }} {{ dict(a=1, **{'z': 2}) }} {{ '{} {}'.format(*[1, 2]) }} {{ range(*[1, 4]) | list }} {{ '{a}'.format(**{'a': 5}) }}
{{ dict(a=1, a=2) }}
{{ s[i] }} {{ s[0:i:2] }} {{ s[i:] }} {{ l[neg] }} {{ l[true] }} {{ s['upper']() }} {{ d['items']() | list }}
{{ l['x'] is defined }} {{ l[1.0] is defined }} {{ s['x'] is defined }} {{ d[[1]] is defined }} {{ d[none] is defined }}
{{ s[::0] }}
{{ s['a':] }}
{{ d[1:] }}
{{ 5 // 2.0 }} {{ -5 // 2.0 }} {{ 5.5 % 2 }} {{ -5.5 % 2 }} {{ 5 % -3 }} {{ 2 ** 0.5 }} {{ 2 ** 62 }} {{ 10 / 4 }} {{ 10 // 4 }} {{ 1e3 // 7 }} {{ 0.1 * 3 }} {{ 1 / 3 }} {{ 2 / 3 }} {{ 1e300 * 1e10 }} {{ 3 * 1.1 }}
{{ 100 * 1.1 }} {{ 1e21 }} {{ 1.0e100 }} {{ 12345678901234567890.0 }} {{ 0.00001 }} {{ 0.0001 }} {{ 123456789.123 }} {{ -0.0 }}
a{% if true %}b{% endif %}c
  {% if true %}x{% endif %}  
{{ 'a' }}
{%+ if true %}x{%+ endif %}
{{- 'x' -}}   {{ 'y' -}}  z
'''.strip("\n").split("\n")]

MULTI = [
    "line1\n  {% if true %}\n  body\n  {% endif %}\nend\n",
    "line1\n  {%- if true %}\n  body\n  {%- endif %}\nend\n\n",
    "line1\n  {% if true -%}\n  body\n  {% endif -%}\n  end",
    "  {%+ if true %}\n x\n  {%+ endif +%}\ny",
    "a\n\n  {#- c -#}  \n\n b {# c #}\n d\n  {# e #}\nf",
    "  {{ 1 }}\n  {{ 2 -}}\n   3",
    "{% for x in l %}\n  - {{ x }}\n{% endfor %}\n",
    "{% for x in l -%}\n  - {{ x }}\n{%- endfor %}\n",
    "{% set a = 1 %}\n{% set b = 2 %}\n\n{{ a }}{{ b }}\n",
    "a\r\nb\rc\n{% if true %}\r\nd{% endif %}\r\n",
    "\n\n{% raw %}\n {{ x }}\n{% endraw %}\n\nx",
    "  {% raw %}  {{ y }}\n  {% endraw %}\nz",
    "x {%- raw -%}  a  {%- endraw -%}  y",
    "{% raw -%}\n  a {% endraw %}",
    "\t {% if true %}\t\n{% endif %}x",
    "text \t\n \t{% if true %} y {% endif %} \n",
    "\u00a0{% if true %}x{% endif %}\u00a0\n\u2003{% if true %}y{% endif %}",
    "{{ 'a\nb' }}\n{{ \"x\r\ny\" }}",
    "{%- macro m(a,\n  b) -%}\n  {{ a }}\n  {{ b }}\n{%- endmacro -%}\n{{ m(1,\n 2) }}",
    "{% if i > 5\n   and t %}\nyes\n{% elif n %}\nno\n{% else %}\nelse\n{% endif %}",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ {'a': {}} }}",
    "{{'}}'}}{{ '%}' }}{{ \"{{\" }}{% set x = '%}' %}{{ x }}",
    "{# {{ x }} {% if %} #}ok{#- -#}ok",
    "{##}x{#--#}y",
    "a {#- unclosed",
    "{% raw %} unclosed",
    "{{ x",
    "{% if true",
    "}} %} #} { { %",
    "{",
    "{{ '{{' }}{",
    "",
    "\n",
    "\n\n",
    "   ",
    "{% if true %}   {% endif %}|",
    "{%-if true-%} a {%-endif-%} b",
    "{{i}}{{-i}}{{+i}}{{- i -}}",
    "x\n{% call (y) m() %}{% endcall %}",
    "{% set x %}\n  a\n  {% if true %}\n  b\n  {% endif %}\n{% endset %}[{{ x }}]",
    "{% macro outer() %}{% macro inner() %}{{ i }}{{ caller is defined }}{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}",
    "{% macro row(x) %}<{{ caller(x) }}>{% endmacro %}{% for x in l %}{% call(y) row(x) %}{{ y }}{{ loop.index }}{% endcall %}{% endfor %}",
    "{% for x in l %}{% set y = x %}{% with %}{% set y = 9 %}{{ y }}{% endwith %}{{ y }}{% endfor %}",
    "{% for u in users %}{% for t in u.tags %}{{ t }}{% else %}-{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in [1,2,3] %}{% if x == 2 %}{% set found = x %}{% break %}{% endif %}{% endfor %}[{{ found }}]",
    "{% for x in l %}{% filter upper %}{% if x == 1 %}{% break %}{% endif %}a{{ x }}{% endfilter %}{% endfor %}!",
    "{% for x in l %}{% set b %}{% if x == 1 %}{% continue %}{% endif %}a{{ x }}{% endset %}{{ b }}{% endfor %}!",
    "{% macro m() %}{% for x in l %}{{ x }}{% if x == 1 %}{% break %}{% endif %}{% endfor %}{% endmacro %}{{ m() }}{{ m() | length }}",
    "{% set g = l | map('string') %}{{ g | list }}{{ g | list }}{{ 3 in l | map('int') }}",
    "{% set g = l | select('odd') %}{% for x in g %}{{ x }}{% endfor %}{% for x in g %}{{ x }}{% endfor %}|",
    "{% for a in l %}{% for b in ls if b != 'A' %}{{ a }}{{ b }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in l if loop is defined %}{{ x }}{% endfor %}",
    "{% set ns = namespace(on=true) %}{% for x in l if ns.on %}{{ x }}{% set ns.on = false %}{% endfor %}",
    "{% set ns = namespace(on=true) %}{% for x in l if ns.on %}{{ x }}{{ loop.index }}{% set ns.on = false %}{% endfor %}",
    "{% macro m(x) %}{% set ns = namespace(r='') %}{% for i in range(x) %}{% set ns.r = ns.r ~ i %}{% endfor %}{{ ns.r }}{% endmacro %}{{ m(12) }}",
    "{% for item in nested recursive %}{% if item is not number %}({{ loop(item) }}){% else %}{{ item }}{{ loop.depth0 }}{{ ',' if not loop.last }}{% endif %}{% else %}E{% endfor %}",
    "{% if zzz is defined and zzz.a.b %}x{% elif d.b is defined %}y{% endif %}",
    "{% set x = 5 %}{% if true %}{% for q in [1] %}{% set x = 6 %}{% endfor %}{% endif %}{{ x }}",
    "{% for q in [1] %}{% if true %}{% set x = 6 %}{% endif %}{{ x }}{% endfor %}{{ x is defined }}",
    "{% with x = 1 %}{% for q in [1,2] %}{{ x }}{% set x = q + 5 %}{{ x }}{% endfor %}{{ x }}{% endwith %}",
    "{% macro m(a, b=a ~ '!', c=b ~ '?') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m('x') }}{{ m('x', c=1) }}{{ m('x', 'y') }}",
    "{% macro m(a=z, z=1) %}{{ a }}{{ z }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ caller(n) }}{% endif %}{% endmacro %}{% call(v) m(2) %}[{{ v }}{{ i }}]{% endcall %}",
    "{% call m() %}{% endcall %}",
    "{% for k, v in d | dictsort(by='value') %}{{ loop.index }}{{ k }}{{ v }}{{ ', ' if not loop.last else '.' }}{% endfor %}",
    "{{ [1, 2, 3] | map('default', 5) | list }}{{ [{'a': none}] | map(attribute='a') | list }}{{ [[1, 2]] | map('last') | list }}{{ [[1, 2]] | map('join', '-') | list }}",
    "{%- for message in messages %}\n    {{- '<|' + message['role'] + '|>\\n' }}\n    {%- if message['content'] is string %}\n        {{- message['content'] + '<|end|>\\n' }}\n    {%- endif %}\n{%- endfor %}\n",
    "{{ '\\u00e9'|length }}{{ '\\x' }}",
    "{{ '\\u12' }}",
    "{{ 'a\\\nb' }}",
    "{% set x = 'a' %}{% set y = x %}{% set x = x ~ 'b' %}{% set z = y ~ 'c' %}{{ x }}{{ y }}{{ z }}",
    "{% set ns = namespace(s='') %}{% for x in range(300) %}{% set ns.s = ns.s ~ 'abc' %}{% set keep = ns.s ~ 'X' %}{% endfor %}{{ ns.s | length }}{{ ns.s[-4:] }}",
]

VALUES = ["i", "zero", "neg", "f", "whole", "tiny", "huge", "t", "n", "s", "empty", "uni", "num", "fnum", "lines", "l", "ls", "mixed", "el", "nested", "d", "ed",
          "zzz", "(1, 'x')", "range(4)", "users", "'%d'", "'a'", "d.items()", "-1", "pad", "html"]
FILTERS = ["abs", "attr('upper')", "batch(2) | list", "capitalize", "center(20)", "length", "default('D')", "default('D', true)", "dictsort", "escape",
           "filesizeformat", "first", "float", "forceescape", "format", "groupby(0) | list", "indent(2)", "int", "items | list", "join('-')", "last", "list",
           "lower", "map('string') | list", "map(attribute=0) | list", "max", "min", "pprint", "reject('none') | list", "select | list",
           "replace('a', 'X')", "reverse | list", "round", "round(1)", "safe", "slice(2) | list", "sort", "string", "striptags", "sum",
           "title", "tojson", "tojson(indent=2)", "trim", "truncate(5)", "unique | list", "upper", "urlencode", "wordcount", "wordwrap(6)", "xmlattr", "count",
           "d", "e", "selectattr(0) | list", "rejectattr('x') | list"]
TESTS = ["boolean", "callable", "defined", "divisibleby(2)", "eq(7)", "escaped", "even", "false", "float", "ge(1)", "gt(1)", "in(l)", "in('abc')", "integer",
         "iterable", "le(1)", "lower", "lt(1)", "mapping", "ne(7)", "none", "number", "odd", "sameas(none)", "sequence", "string", "true", "undefined",
         "upper", "filter", "test"]
OPS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
METHODS = ["upper()", "lower()", "title()", "capitalize()", "swapcase()", "strip()", "lstrip()", "rstrip()", "split()", "split(' ')", "rsplit(' ', 1)",
           "splitlines()", "startswith('H')", "endswith('d')", "replace('o', '0')", "find('o')", "rfind('o')", "count('o')", "zfill(20)", "ljust(20, '.')",
           "rjust(20, '.')", "center(21, '.')", "partition(' ')", "rpartition(' ')", "isalpha()", "isdigit()", "isspace()", "isupper()", "islower()", "istitle()",
           "isalnum()", "isnumeric()", "isdecimal()", "isprintable()", "isascii()", "isidentifier()", "join(ls)", "casefold()", "expandtabs()", "removeprefix('He')",
           "removesuffix('ld')", "format(1)", "keys()", "items()", "values()", "get('a')", "index(1)", "copy()"]
SLICES = ["[0]", "[-1]", "[99]", "[1:]", "[:1]", "[::-1]", "[-2:]", "[1:3]", "[::2]", "['a']", "[none]", "[1:-1]", "[::-2]", "[5:0:-1]", ".a", ".0"]


class Generation(jinja2.ext.Extension):
    """The block of transformers' AssistantTracker, without its bookkeeping."""
    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(lineno)

    def _text(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def products():
    for v in VALUES:
        for x in FILTERS:
            yield "{{ %s | %s }}" % (v, x)
        for x in TESTS:
            yield "{{ %s is %s }}" % (v, x)
        for x in METHODS:
            yield "{{ (%s).%s }}" % (v, x)
        for x in SLICES if v != "-1" else []:  # slices of constant numbers are folded to an undefined
            yield "{{ (%s)%s }}" % (v, x)
        for x in VALUES:
            for op in OPS:
                if "d.items()" in (v, x) and op in ("-", "<", "<=", ">", ">="):
                    continue  # a set, printed in no order
                yield "{{ %s %s %s }}" % (v, op, x)


def usable(case):
    text = case.get("expected", "")
    if re.search(r"0x[0-9a-f]{8}|<built-in|<bound|<function|<generator|<class|reverseiterator|range_iterator", text):
        return False
    if any(not -2**63 <= int(n) < 2**63 for n in re.findall(r"(?<![\w.])-?\d{19,}(?![\w.])", text)):
        return False
    if re.search(r"\dj\)", text):  # complex numbers
        return False
    return "pprint" not in case["source"] or len(text) < 80


def main():
    env = environment()
    rng = random.Random(20240726)
    hand = HAND + MULTI
    made = list(products())
    if "--all" not in sys.argv:
        made = rng.sample(made, 900)
    cases = []
    for source in hand + made:
        case = {"source": source}
        try:
            case["expected"] = env.from_string(source).render(**json.loads(json.dumps(VARS)))
        except Exception as e:  # whatever the reference raises is an error of the template
            case["error"] = ("%s: %s" % (type(e).__name__, e)).split("\n")[0][:120]
        if usable(case):
            cases.append(case)
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data", "jinja_cases.json")
    if "--out" in sys.argv:
        out = sys.argv[sys.argv.index("--out") + 1]
    with open(out, "w", encoding="utf-8") as f:
        f.write('{"reference": "Jinja2 %s",\n "vars": %s,\n "cases": [\n' % (jinja2.__version__, json.dumps(VARS, ensure_ascii=False)))
        f.write(",\n".join("  " + json.dumps(c, ensure_ascii=False) for c in cases))
        f.write("\n]}\n")
    print("%d cases, %d of them errors" % (len(cases), sum("error" in c for c in cases)))
    if "--show" in sys.argv:
        for c in rng.sample(cases, int(sys.argv[sys.argv.index("--show") + 1])):
            print(c)


if __name__ == "__main__":
    main()
