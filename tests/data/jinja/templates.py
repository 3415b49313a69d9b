"""Templates for make_vectors.py: every filter, test, function and method, and idioms of chat templates."""

VARIABLES = {
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "n": 5, "f": 2.5, "s": "hello World", "z": None, "t": True,
    "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi\nthere  "}, {"role": "assistant", "content": "Größe a,b"}],
    "d": {"b": 1, "a": [1, 2.0, None, True, "x'y"], "C": {"k": "v"}}, "l": [3, 1, 2], "e": [],
    "w": "  a\tb\r\n c\u3000d ", "u": "ǆ ß ŉ Σας İı ﬁ 𝒜 ²½ １२ e\u0301", "words": ["Banana", "apple", "cherry", "Apple"],
    "h": "<p class=\"x\">A &amp; B &lt;c&gt; &nbsp;&notit; &#8364;&#x80;</p> <!-- <x> --> it's",
    "url": "see http://example.com/a?b=1&c=2, (www.foo.org) or https://x.y/(z) or mail me@x.org, mailto:a@b.de ftp://no.",
    "nested": [{"a": {"b": [1, {"c": 2}]}, "g": "x"}, {"a": {"b": [3, {"c": 1}]}, "g": "y"}, {"a": {"b": [3, {"c": 1}]}, "g": "X"}],
    "long": "The quick brown-fox jumps -- over the lazy dog, again and again; antidisestablishmentarianism is a well-known long-ish word.\nSecond line.",
    "tools": [{"type": "function", "function": {"name": "get_weather", "description": "Weather of a \"city\" <ü>", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "enum": [1, 2]}}, "required": ["city"]}}}],
    "calls": [{"role": "user", "content": [{"type": "text", "text": "Weather?"}, {"type": "image"}]},
              {"role": "assistant", "tool_calls": [{"id": "abcdefghi", "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2}}}]},
              {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "{\"temp\": 7.5}"},
              {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is 7.5 °C."}],
}

EXPRESSIONS = r"""
s[1:4] ~ s[::-1] ~ s[-3:] ~ s[:-3] ~ s[5] ~ s[-1]
[l[::2], l[-2:], l[5:], l[::-1], l[100:0:-1], (1,2,3)[1:], range(9)[2:7:2], range(9)[::-3]]
[1, 2.0, 1e16, 1e-5, 1.5e300, -0.0, 123456789012345678, 0x1f, 0b101, 0o17, 1_000, 1.5e3]
[1/3, 7//2, -7//2, 7.5//2, -7%3, 7%-3, -7.5%2, 2**10, 2**-1, 2**0.5, (-2)**2, -2**2, 2**3**2]
[1 + 2.0, 3 - 1, 2 * 3.5, true + 1, 10/2, 0.1 + 0.2]
['a' * 3, 3 * 'ab', [1] * 2, (1,) * 2, [1] + [2], (1,) + (2,), 'a' + 'b', 'x' * -1]
[1 < 2 < 3, 1 < 3 < 2, 1 == 1.0, true == 1, 'a' < 'b', [1, 2] < [1, 3], (1,) <= (1,), 1 != 2, none == none]
['a' in 'abc', 1 in [1], 'b' in d, 3 in range(5), 'x' not in d, ('b', 1) in d.items(), 1.0 in [1], true in [1]]
[not true, 1 and 0, 0 or 3, '' or 'x', not '', 1 and 'y', none or none]
['a' if false, 'a' if true else 'b', (1 if false) is defined]
[nope, nope is defined, d.nope is defined, d['nope'] is defined, nope == nope, nope|default('D'), nope|length, nope|list]
[d.items, d.b, d['b'], d.a[0], d.a.0, d['C'].k, messages[0].role, messages[-1]['content']]
[{'a': 1, 2: 'b', none: 3, 1.5: 4, (1, 2): 5}, {}, {1: 'a', 1.0: 'b', true: 'c'}]
["it's", 'q"', "both'\"", 'tab\t', 'nl\n', 'é', '\x07', '\u200b', '\U0001F600', 'back\\slash', '\d', '\101', 'a' 'b']
[(), (1,), (1, 2), [], [[]], [none, true, false], ('x',)]
s ~ n ~ f ~ none ~ true ~ l ~ nope
d
[d.keys(), d.values(), d.items(), d|length, d.keys()|list, d.values()|list, d.items()|list]
'%s %d %5.2f %x' % ('a', 3, 2.5, 255)
'%(a)s-%(b)05d' % {'a': 1, 'b': 42}
['%s' % 'x', '%s' % [1, 2], '%r' % 'x', '%a' % 'é', '%c%c' % (65, 'b'), '%%', '%5s|%-5s|%05d|%+d|% d' % ('a', 'b', 3, 4, 5), '%.2s' % 'abc']
['%o %x %X %#o %#x %#X' % (8, 255, 255, 8, 255, 255), '%e %E %g %G %f' % (12345.678, 0.00012, 1e10, 1e-5, 1.5), '%.3g %#.3g %g' % (1.0, 1.0, 100000.0)]
['%*d' % (5, 3), '%-*d|' % (5, 3), '%.*f' % (2, 3.14159), '%i %u' % (3.9, -2), '%s%%' % 5, '%05.1f|%+.0f' % (-2.25, 2.5), '%10.3e' % 12345.6]
['%s' % none, '%s' % true, '%d' % true, '%s' % d.b, '%s %s' % (1, (2,)), '%08.3f' % -3.14159, '%x' % -255]
'a{}b{x}'.format(1, x=2) ~ '{0}{1}{0}'.format('a', 'b') ~ '{{}}'.format() ~ '{0[b]} {0[a][1]}'.format(d) ~ '{x.real}'.format(x=3)
['{:>5}|{:<5}|{:^5}|{:*^7}|{:05}'.format('a', 'b', 'c', 'd', 3), '{:,} {:_} {:+} {: }'.format(1234567, 1234567, 3, 4)]
['{:b} {:o} {:x} {:X} {:#b} {:#x} {:c} {:d}'.format(5, 8, 255, 255, 5, 255, 65, 3), '{:.2f} {:e} {:g} {:.3} {:%} {:.1%}'.format(3.14159, 12345.678, 0.0001, 2.0, 0.25, 0.125)]
['{!r} {!s} {!a}'.format('x', 'y', 'é'), '{:{}}|{:{w}.{p}f}'.format('a', 5, 3.14159, w=8, p=2), '{:s} {:.2s} {:>4.1s}|'.format('ab', 'abc', 'xy')]
['{:08,}'.format(1234), '{:012,.2f}'.format(-1234.5), '{:=+6d}'.format(42), '{:_x}'.format(123456), '{:,.3f}'.format(1234567.8), '{:n}'.format(1234), '{:.0f} {:.0f}'.format(0.5, 1.5)]
['{}'.format(none), '{}'.format(true), '{:5}|'.format(true), '{}'.format(1.0), '{:.3}'.format(1234.5), '{:10}|'.format(2.5), '{a}'.format_map({'a': 1})]
s|capitalize ~ s|title ~ s|upper ~ s|lower ~ s|length ~ s|count ~ 'o\'neill is-here (now) [x]'|title
u|title ~ u|upper ~ u|lower ~ u|capitalize
[u.title(), u.upper(), u.lower(), u.capitalize(), u.swapcase(), u.casefold()]
['x'|center(7), 'ab'|center(5), s|center(20), 'abc'|center(2), ''|center(3)]
[messages[1].content|indent, 'a\nb\n\nc'|indent(2), 'a\n\nb'|indent(2, true), 'a\n\nb'|indent(2, blank=true), 'a\nb'|indent('> '), 'a\nb'|indent(width=1, first=true), ''|indent(2, true)]
[w|trim, 'xxaxx'|trim('x'), w|wordcount, 'a-b c_d é.f'|wordcount, w|string, 5|string, none|string]
['foo bar baz qux'|truncate(9), 'foo bar baz qux'|truncate(9, true), 'foo bar baz qux'|truncate(11), 'foo bar baz qux'|truncate(11, false, '...', 0), long|truncate(20, end='…'), long|truncate(40, leeway=0)]
long|wordwrap(20)
[long|wordwrap(12, false), long|wordwrap(10, wrapstring='|'), 'a-b-c well-known --dash-- x'|wordwrap(6), 'aaaa-bbbb'|wordwrap(6, break_on_hyphens=false), long|wordwrap, 'x\n\ny  z'|wordwrap(3)]
['abcabc'|replace('b', 'x'), 'abcabc'|replace('b', 'x', 1), 5|replace('5', 'five'), 'aaa'|replace('', '-'), 'a'|replace('a', 3)]
['%s, %s!'|format('a', 'b'), '%(x)s'|format(x=1), '%d%%'|format(3), 'none'|format]
[l|batch(2)|list, l|batch(2, '-')|list, l|batch(5, 0)|list, range(7)|batch(3)|list, e|batch(2)|list, l|batch(0)|list]
[l|slice(2)|list, l|slice(2, '-')|list, range(7)|slice(3)|list, range(10)|slice(4, 'x')|list, e|slice(2)|list]
[l|sort, l|sort(reverse=true), words|sort, words|sort(case_sensitive=true), words|sort(true), nested|sort(attribute='a.b.0')|map(attribute='g')|list, nested|sort(attribute='a.b.1.c,g')|map(attribute='g')|list]
[d|dictsort, d|dictsort(true), d|dictsort(reverse=true), {'x': 2, 'y': 1}|dictsort(by='value'), {'x': 2, 'Y': 1}|dictsort(false, 'key')]
[l|min, l|max, words|min, words|max, words|max(case_sensitive=true), nested|max(attribute='g'), e|min is defined, 'hello'|max]
[l|sum, [1.5, 2]|sum, nested|sum(attribute='a.b.0'), l|sum(start=10), [[1], [2]]|sum(start=[]), e|sum]
[l|first, l|last, e|first is defined, e|last is defined, 'abc'|first, 'abc'|last, d|first, range(3)|last, d|last]
[l|join, l|join(', '), words|join('-'), nested|join('+', attribute='g'), 'abc'|join('.'), [1, none, true]|join('|'), e|join('x')]
[l|reverse|list, s|reverse, (1, 2)|reverse|list, d|reverse|list, l|map('string')|reverse, range(3)|reverse|list]
[words|unique|list, words|unique(true)|list, nested|unique(attribute='g')|map(attribute='g')|list, [1, 1.0, true, '1']|unique|list]
nested|groupby('a.b.0')
[nested|groupby('g')|map('first')|list, nested|groupby('g', case_sensitive=true)|map(attribute='grouper')|list, [{'x': 1}, {}]|groupby('x', default=0)|list, nested|groupby('g')|map(attribute='list')|map('length')|list]
[words|map('upper')|list, messages|map(attribute='role')|list, [{}, {'a': 1}]|map(attribute='a', default='-')|list, ['1', 'x']|map('int', 7)|list, [' a ']|map('trim')|map('length')|list, nested|map(attribute='a.b.1.c')|list]
[l|select('odd')|list, l|select('gt', 1)|list, [0, 1, '', 'x']|select|list, l|reject('odd')|list, [0, 1, none]|reject|list, l|select('in', [1, 2])|list, words|select('eq', 'apple')|list]
[messages|selectattr('role', 'eq', 'user')|map(attribute='content')|list, messages|rejectattr('role', 'equalto', 'user')|list|length, [{'a': 1}, {'a': 0}, {}]|selectattr('a')|list, [{'a': 1}, {}]|selectattr('a', 'defined')|list, [{'a': none}, {}]|rejectattr('a', 'none')|list]
[e|map('nosuch')|list, nope|select('odd')|list]
[42.55|round, 42.55|round(1, 'floor'), 42.45|round(1), 2.5|round, 3.5|round, -2.5|round, 2.675|round(2), 1234|round(-2), 1250|round(-2), 42.55|round(1, 'ceil'), 5|round, true|round, 1e20|round(2), 15.0|round(-1)]
['42'|int, '42.9'|int, 'x'|int, 'x'|int(7), '0x1f'|int(0, 16), '101'|int(base=2), '0b11'|int(0, 0), ' 7 '|int, 4.9|int, none|int, true|int, '1_000'|int, '１２'|int, '-5'|int, ''|int, '1e3'|int]
['1.5'|float, 'x'|float, 'x'|float(2.5), 3|float, 'inf'|float, 'nan'|float, ' 1e3 '|float, none|float(0), '1_0.5'|float, true|float]
[-5|abs, (-5)|abs, 2.5|abs, true|abs, (-2.5)|abs]
[0|filesizeformat, 1|filesizeformat, 999|filesizeformat, 1000|filesizeformat, 13000|filesizeformat, 4100000|filesizeformat, 1024|filesizeformat(true), 1e30|filesizeformat, '5000'|filesizeformat, 1536|filesizeformat(binary=true)]
[h|striptags, h|escape, h|e|e, h|forceescape, h|safe, '<'|e ~ '<', ('<'|e) + '<', 'a<b>&"\''|escape, 5|e, none|e]
[{'a': 1, 'b': '<', 'c': none, 'd': nope}|xmlattr, {'x': 'y'}|xmlattr(false), {}|xmlattr, {'x': true, 'y': 1.5}|xmlattr]
['a b/c?d=e&f'|urlencode, 'é ü'|urlencode, {'a b': 'c/d', 'x': 1}|urlencode, [('a', 1), ('b', '&')]|urlencode, 5|urlencode, '~.-_'|urlencode]
url|urlize
[url|urlize(10), url|urlize(nofollow=true), url|urlize(target='_blank'), url|urlize(rel='x y'), 'x ftp://a.b/c'|urlize(extra_schemes=['ftp://'])]
[d|pprint, words|pprint, s|pprint, 5|pprint, none|pprint]
tools|pprint
[long|pprint, [long, 'x']|pprint, {'k': long, 'a': l * 30}|pprint, (1,)|pprint, [d, d, d]|pprint, ('x' * 100)|pprint]
[tools|tojson, messages[2]|tojson(ensure_ascii=true), {'a': [1, 2]}|tojson(separators=(',', ':')), {'b': 1, 'a': 2}|tojson(sort_keys=true), 'a"\\\n\t\x07\x7fé😀/'|tojson, 'é😀\x7f'|tojson(true)]
tools|tojson(indent=2)
[{'a': [], 'b': {}, 'c': [1]}|tojson(indent=1), [1, [2]]|tojson(indent=0), {'a': 1}|tojson(indent='--'), {'a': [1]}|tojson(indent=2, separators=(';', '=')), {1: none, none: 1.0, true: 'x', 1.5: []}|tojson, (1, 2)|tojson, [1e16, 1e-7, -0.0]|tojson]
['inf'|float|tojson, 5|tojson, none|tojson, 'x'|tojson(indent=2), '<b>&'|tojson, ('<'|e)|tojson]
[d|items|list, nope|items|list, d|attr('items') is callable, d|attr('b') is defined, s|attr('upper') is defined]
[l|list, 'abc'|list, d|list, range(3)|list, (1, 2)|list, nope|list, d.items()|list]
[nope|default, nope|d('x'), ''|default('x'), ''|default('x', true), none|default('x'), none|default('x', boolean=true), 0|d(5, true)]
[3 is odd, 4 is even, 9 is divisibleby 3, 9 is divisibleby(2), n is defined, nope is undefined, none is none, true is boolean, 1 is boolean, false is false, true is true, 1 is true]
[1 is integer, true is integer, 1.0 is integer, 1.0 is float, 1 is number, true is number, 'a' is number, 'a' is string, d is mapping, l is mapping, l is sequence, 'a' is sequence, 5 is sequence, d is sequence, nope is sequence]
['abc' is lower, 'aBc' is lower, 'ABC' is upper, '1' is upper, l is iterable, 5 is iterable, 'a' is iterable, range is callable, 5 is callable, nope is callable, s.upper is callable]
[1 is sameas 1, true is sameas true, 1 is sameas true, none is sameas none, l is sameas l, [] is sameas [], 'a' is in 'abc', 1 is in [1, 2], 'x' is not in d, 'x'|e is escaped, 'x' is escaped]
[1 is eq 1, 1 is equalto 1.0, 1 is ne 2, 2 is gt 1, 2 is greaterthan 1, 2 is ge 2, 1 is lt 2, 1 is lessthan 2, 1 is le 1, 1 is not eq 2, 'upper' is filter, 'nosuch' is filter, 'odd' is test, 'x' is test]
[s.capitalize(), s.casefold(), s.center(20, '*'), s.count('l'), s.count('l', 4), s.count(''), s.endswith('ld'), s.endswith(('x', 'd')), s.startswith('he'), s.startswith('World', 6), 'a\tb'.expandtabs(), 'a\tb\n\tc'.expandtabs(4)]
[s.find('o'), s.find('o', 5), s.find('x'), s.rfind('o'), s.rfind('l', 0, 4), s.index('W'), s.rindex('o'), s.find(''), s.find('', 99), s.find('h', -20)]
['a1'.isalnum(), 'a'.isalpha(), '1'.isdecimal(), '²'.isdigit(), '½'.isnumeric(), 'a'.isascii(), 'a_1'.isidentifier(), 'a b'.isprintable(), ' \n'.isspace(), 'Ab Cd'.istitle(), 'AB'.isupper(), 'ab'.islower(), ''.isalpha(), ''.isascii(), '一'.isnumeric(), '\n'.isprintable()]
[','.join(['a', 'b']), 'ab'.ljust(5) ~ '|', 'ab'.rjust(5, '.'), ' a '.lstrip(), 'xxa'.lstrip('x'), ' a '.rstrip() ~ '|', 'axx'.rstrip('x'), w.strip(), 'abcba'.strip('ab'), 'x'.zfill(4), '-7'.zfill(4), '+'.zfill(3)]
['a,b,c'.partition(','), 'a,b,c'.rpartition(','), 'abc'.partition(','), 'abc'.rpartition(','), 'a,b,c'.split(','), 'a,b,c'.split(',', 1), 'a,b,c'.rsplit(',', 1), w.split(), ' a b  c '.split(none, 1), ' a b  c '.rsplit(none, 1), ''.split(), ''.split(','), 'a,b'.split(sep=',', maxsplit=0)]
['a\nb\r\nc\rd\x0be\u2028f'.splitlines(), 'a\nb\n'.splitlines(true), ''.splitlines(), '\n'.splitlines(), 'a\n\nb'.splitlines(keepends=true)]
['abcabc'.replace('b', 'x'), 'abcabc'.replace('b', 'x', 1), 'aa'.replace('', '-'), 'aa'.replace('a', ''), 'prefix-x'.removeprefix('prefix-'), 'x-suffix'.removesuffix('-suffix'), 'x'.removeprefix('y')]
['hello'.translate({104: 'J', 101: none, 108: 76}), 'abc'.translate('abc'.maketrans('ab', 'xy', 'c')), ''.maketrans({'a': 1, 98: 'z'}), 'aBc dEf'.swapcase(), "they're bill's".title(), 'ab'.encode(), 'é'.encode().decode(), 'ab'.encode().hex()]
[d.get('b'), d.get('x'), d.get('x', 5), d.copy() == d, {}.fromkeys(['a', 'b'], 0), dict.fromkeys('ab'), l.count(1), l.index(2), l.copy(), (1, 2, 1).count(1), (1, 2).index(2), range(5).index(3), range(5).count(2), d.keys().isdisjoint(['z'])]
[n.bit_length(), n.real, n.imag, n.numerator, n.denominator, n.conjugate(), (255).bit_count(), f.is_integer(), (2.0).is_integer(), f.hex(), f.as_integer_ratio(), f.real, (-0.1).hex(), n.as_integer_ratio()]
[range(5)|list, range(2, 10, 3)|list, range(5, 0, -2)|list, range(0)|list, range(5), range(1, 9, 2), range(3)|length, range(5)[1], range(5).stop]
[dict(a=1, b=2), dict([('x', 1)], y=2), dict({'a': 1}), dict(), dict(d, z=1)|length]
[namespace(a=1).a, namespace({'x': 2}).x, namespace().y is defined, namespace(a=1), namespace(a=1)['a']]
[cycler(1, 2).next(), cycler('a').current, joiner()(), joiner('x').sep, cycler(1, 2).items]
[strftime_now('%Y'), cycler, joiner, range(0) == range(2, 1), {1: 2} == {1.0: 2}, [1] == (1,)]
[loop is defined, self is defined, varargs is defined, caller is defined, x is defined]
s.upper().lower().title().replace('o', '0').split()[0] ~ messages[0].content.strip().split('\n')|first
[('a', 1), ('b', 2)]|map('last')|list ~ d.items()|map('first')|join(',') ~ messages|map(attribute='content')|map('trim')|join(' / ')
[1, 'a', none, 1.5, true, [1], {'a': 1}]|map('tojson')|join(' ') ~ [1, 'a', none]|map('string')|list
s|upper is upper and s is string and not s is number or nope
(l|length > 2) ~ (l|first + 1) ~ -(l|first) ~ (-3)|abs ~ 2 * 3|float
'{}'.format('<')|e ~ ('<b>%s</b>'|safe % '<') ~ ('<b>{}</b>'|safe).format('<') ~ ('<'|safe).join(['<', '>'])
[('<b>'|safe).upper(), ('<b>'|safe) * 2, ('<b>'|safe)[0], ('a,b'|safe).split(','), ('&lt;'|safe).unescape(), ('<b>x</b>'|safe).striptags(), ('<b>'|safe).replace('b', '<')]
"""

STATEMENTS = [
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}|{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }} {% endfor %}",
    "{% for x in l|map('string') %}{{ loop.length }}{{ loop.last }}{{ x }} {% endfor %}{% for x in l|select('odd') %}{{ x }}{{ loop.nextitem }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for a, b in ['xy'] %}{{ b }}{{ a }}{% endfor %}",
    "{% for x in [1, [2, [3, []]]] recursive %}{{ loop.depth }}{{ loop.depth0 }}{% if x is iterable %}[{{ loop(x) }}]{% else %}{{ x }}{% endif %}{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}:{{ x }} {% else %}none{% endfor %}{% for x in e %}x{% else %}empty{% endfor %}{% for x in l if x > 9 %}{% else %}no{% endfor %}",
    "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}{% for x in l %}{% break %}{% else %}E{% endfor %}{% for x in l %}{% continue %}{% else %}F{% endfor %}",
    "{% set x = 1 %}{% for i in l %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% set ns.y = i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns }}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d2) = (b, a) %}{{ c }}{{ d2 }}{% set p = 1, 2 %}{{ p }}{% set q = (1,) %}{{ q }}",
    "{% set x %}a{{ n }}b{% endset %}{{ x }}{{ x|length }}{% set y | upper | replace('A', 'x') %}abc{% endset %}{{ y }}{% set z2 | length %}abc{% endset %}{{ z2 + 1 }}",
    "{% macro f(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(b=5, a=4) }}{{ f() }}{{ f(*[7, 8]) }}{{ f(**{'a': 9}) }}{{ f.name }}{{ f.arguments }}{{ f }}",
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}{% macro g(a, b=a ~ '!') %}{{ b }}{% endmacro %}{{ g('x') }}{% macro h(x) %}{{ x is defined }}{% endmacro %}{{ h() }}",
    "{% macro f(x) %}[{{ caller(x) if caller else '' }}]{% endmacro %}{% call(y) f(3) %}{{ y }}{{ n }}{% endcall %}{{ f(1) }}{% macro o() %}<{{ caller() }}>{% endmacro %}{% call o() %}{% call o() %}in{% endcall %}{% endcall %}",
    "{% macro fact(k) %}{% if k < 2 %}1{% else %}{{ k }}*{{ fact(k - 1) }}{% endif %}{% endmacro %}{{ fact(5) }}{% macro m() %}{{ later }}{% endmacro %}{% set later = 'L' %}{{ m() }}",
    "{% if n > 9 %}a{% elif n == 5 %}b{% else %}c{% endif %}{% if nope %}x{% endif %}{% if e or z %}y{% else %}w{% endif %}{% if not e and l %}v{% endif %}",
    "{% if false %}{% set x = 1 %}{% endif %}{{ x is defined }}{% if true %}{% set y = 1 %}{% endif %}{{ y }}{% for i in l %}{% if loop.first %}{% set w2 = i %}{% endif %}{{ w2 is defined }}{% endfor %}",
    "{% for i in [1] %}{{ messages|length }}{% endfor %}{% set messages = 2 %}{{ messages }}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% set a = 2 %}{{ a }}{% endwith %}{{ a is defined }}{% with %}{% set q = 1 %}{% endwith %}{{ q is defined }}{% with n = n + 1 %}{{ n }}{% endwith %}{{ n }}",
    "{% filter upper %}abc{{ s }}{% endfilter %}{% filter indent(2, true) | replace('b', 'x') %}a\nb{% endfilter %}{% for i in l %}{% filter trim %} {{ i }} {% endfilter %}{% endfor %}",
    "{% raw %}{{ x }}{% if %}{% endraw %}{%- raw -%} a {%- endraw -%} b{# comment {{ x }} #}c{#- x -#} d",
    "{% block a %}A{{ n }}{% endblock %}{{ self.a() }}{% set v = 1 %}{% block b %}{{ v }}{% set v = 2 %}{{ v }}{% endblock %}{{ v }}{% for i in l %}{% block c scoped %}{{ i }}{% endblock c %}{% endfor %}{{ self }}",
    "{% generation %}{{ messages[2].content }}{% endgeneration %}{%- generation -%} x {%- endgeneration -%}{% for m in messages %}{% generation %}{{ loop.index }}{% set q = 1 %}{% endgeneration %}{% endfor %}{{ q is defined }}",
    "{% autoescape true %}{{ '<' }}{{ '<'|safe }}{{ '<' ~ '>' }}{{ '<'|e }}{% set x %}<b>{% endset %}{{ x }}{{ ['<', '<'|safe]|join('&') }}{{ '<'|replace('<', '>') }}{% endautoescape %}{{ '<' }}{% autoescape n == 5 %}{{ '<' }}{% endautoescape %}",
    "{% macro m(x) %}<{{ x }}>{% endmacro %}{% autoescape true %}{{ m('&') }}{% macro k() %}<{{ '&' }}>{% endmacro %}{{ k() }}{% endautoescape %}{{ m('&') }}",
    "{% print s, n %}{% print 1 + 1 %}{% set c = cycler('o', 'e') %}{% for i in l %}{{ c.next() }}{{ c.current }}{% endfor %}{{ c.reset() }}{{ c.next() }}{% set j = joiner(', ') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}",
    "{% set g = l|map('string') %}{{ g|first }}{{ g|list }}{{ g|list }}{% set r = l|reverse %}{% for x in r %}{% if loop.index == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}{{ r|list }}",
    "a\n{% if true %}\nb\n{% endif %}\nc\n", "  {% if true %}  x  {% endif %}  \n  y", "a {%- if true -%} b {%- endif -%} c", "a\n  {%+ if true %}\n  b\n  {%+ endif %}\nc",
    "{% if true +%}\nx{% endif %}\n\ny", "  {# c #}\nx\n  {#- d -#}  \ny\n\n", "{{ '' }}\n{{ n -}}\n  z\n{{- n }}", "x  \n\n  {%- set a = 1 %}\n\n  {{- a }}\n", "a\r\nb\rc{{ '\r\n' }}d\n",
    "{{ 'a' }}  {% set x = 1 %}\n  {% set y = 2 %}  z\n\t{% for i in l %}\n\t  {{ i }}\n\t{% endfor %}\nend", "\n\n{% set x = 1 -%}\n\n  q\n", "  {{ n }}\n  {% raw %}\n  r\n  {% endraw %}\n  s", "{%- for x in l -%}\n {{ x }} \n{%- endfor -%}\n",
]

CHATS = {
    "phi": "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "chatml": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "alternating": "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}{%- for message in loop_messages %}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('Conversation roles must alternate') }}{%- endif %}{%- if message['role'] == 'user' %}{%- if loop.first and system_message is defined %}{{- ' [INST] ' + system_message + '\n\n' + message['content'] + ' [/INST]' }}{%- else %}{{- ' [INST] ' + message['content'] + ' [/INST]' }}{%- endif %}{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token}}{%- endif %}{%- endfor %}",
    "header": "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}{{- '<|start|>system<|sep|>\n\n' }}{{- 'Today Date: ' + date_string + '\n\n' }}{%- if tools is not none %}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\n\n' }}{%- endfor %}{%- endif %}{%- for message in messages %}{%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}{{- '<|start|>' + message['role'] + '<|sep|>\n\n'+ message['content'] | trim + '<|eot|>' }}{%- elif 'tool_calls' in message %}{%- if not message.tool_calls|length == 1 %}{{- raise_exception('one call at once') }}{%- endif %}{%- set tool_call = message.tool_calls[0].function %}{{- '{\"name\": \"' + tool_call.name + '\", ' }}{{- '\"parameters\": ' }}{{- tool_call.arguments | tojson }}{{- '}' }}{%- else %}{%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|start|>assistant<|sep|>\n\n' }}{%- endif %}",
    "parts": "{%- macro render(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content -%}{%- if part.type == 'text' -%}{{ part.text }}{%- elif part['type'] == 'image' or 'image' in part -%}<image_{{ loop.index }}>{%- endif -%}{%- endfor -%}{%- endif -%}{%- endmacro -%}\n{%- for m in messages -%}\n  {%- if m.content is defined and m.content -%}\n    [{{ m.role|upper }}] {{ render(m.content) }}\n  {% endif -%}\n  {%- if m.tool_calls -%}\n    {%- for call in m.tool_calls -%}\n      CALL {{ call.function.name }}({% for k, v in call.function.arguments.items() %}{{ k }}={{ v|tojson }}{{ ', ' if not loop.last }}{% endfor %})\n    {%- endfor %}\n  {%- endif -%}\n{%- endfor -%}",
    "thinking": "{%- set ns = namespace(last=messages|length - 1, open=true) %}{%- for m in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}{%- if ns.open and m.role == 'user' and not(m.content is string and m.content.startswith('<tool>')) %}{%- set ns.open = false %}{%- set ns.last = index %}{%- endif %}{%- endfor %}{{ ns.last }}{%- for m in messages %}{%- if m.role == 'assistant' and m.content %}{%- set content = m.content %}{%- set reasoning = '' %}{%- if '</think>' in content %}{%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}\n{{ '<|a|>' }}{%- if loop.index0 > ns.last and (loop.last or (not loop.last and reasoning)) %}{{- '<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' }}{%- endif %}{{- content }}{%- endif %}{%- endfor %}",
    "tools": "{%- if tools %}{{- '# Tools\n\n<tools>' }}{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}{{- '\n</tools>' }}{%- endif %}{%- for message in messages %}{%- if message.role == 'tool' %}{%- if loop.first or (messages[loop.index0 - 1].role != 'tool') %}{{- '<|u|>' }}{%- endif %}{{- '\n<r>\n' }}{{- message.content }}{{- '\n</r>' }}{%- if loop.last or (messages[loop.index0 + 1].role != 'tool') %}{{- '<|e|>\n' }}{%- endif %}{%- elif message.tool_calls %}{%- for tool_call in message.tool_calls %}{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}{{- '\n<c>{\"name\": \"' }}{{- tool_call.name }}{{- '\", \"arguments\": ' }}{{- tool_call.arguments | tojson }}{{- '}</c>' }}{%- endfor %}{%- endif %}{%- endfor %}",
    "dictionary": "{% set roles = {'user': 'U', 'assistant': 'A', 'system': 'S'} %}{% for message in messages %}{{ roles[message.role] or '?' }}: {{ message.content | default('', true) | replace('\n', ' ') | trim }}{{ '\n' if not loop.last else '' }}{% endfor %}{{ roles.items() | map('join', '=') | join('&') }}",
}

REFUSED = [
    "{{ 'a' + 1 }}", "{{ 1 + none }}", "{{ nope + 1 }}", "{{ nope.x }}", "{{ nope() }}", "{{ nope[0] }}", "{{ d.nope.x }}", "{{ -nope }}", "{{ nope < 1 }}", "{{ nope|int }}", "{{ 1 / 0 }}", "{{ 1 // 0 }}", "{{ 1 % 0 }}", "{{ 1.5 % 0 }}",
    "{{ 'a' < 1 }}", "{{ [1, 'a']|sort }}", "{{ 1 in 'abc' }}", "{{ 1 in 5 }}", "{{ 5|length }}", "{{ 5|list }}", "{{ none|join }}", "{{ 'x'.nosuch() }}", "{{ d.update({'a': 1}) }}", "{{ d.pop('b') }}", "{{ l.append(1) }}", "{{ l.sort() }}", "{{ d.setdefault('q', 1) }}",
    "{{ d.clear() }}", "{{ l.pop() }}", "{{ ''.__class__.__mro__ }}", "{{ l.index(9) }}", "{{ 'a'.index('b') }}", "{{ ''.split('') }}", "{{ 'a'.join([1]) }}", "{{ '%d' % 'a' }}", "{{ '%s %s' % 1 }}", "{{ '%s' % (1, 2) }}", "{{ '%q' % 1 }}", "{{ '%(a)s' % 1 }}", "{{ '%' % 1 }}",
    "{{ '%x' % 1.5 }}", "{{ '{}'.format() }}", "{{ '{a}'.format(1) }}", "{{ '{'.format(1) }}", "{{ '}'.format(1) }}", "{{ '{:d}'.format('a') }}", "{{ '{:q}'.format(1) }}", "{{ '{!x}'.format(1) }}", "{{ '{0}{}'.format(1, 2) }}", "{{ '{0.__class__.x}'.format(1) }}", "{{ '{:5}'.format([1]) }}", "{{ '{:+}'.format('a') }}",
    "{{ x|nosuch }}", "{{ x is nosuch }}", "{% if false %}{{ 1|nosuch }}{% endif %}{{ 1|nosuch }}", "{{ range(100001) }}", "{{ range(1, 2, 0) }}", "{{ range('a') }}", "{{ l|batch }}", "{{ l|round }}", "{{ 1.5|round(1, 'x') }}", "{{ d|dictsort(by='x') }}", "{{ {'a b': 1}|xmlattr }}", "{{ 'abc'|truncate(2) }}", "{{ 'a'|wordwrap(0) }}",
    "{{ {[1]: 2} }}", "{{ {} in {} }}", "{{ nope|tojson }}", "{{ range(3)|tojson }}", "{{ {(1, 2): 3}|tojson }}", "{{ {1: 1, 'a': 2}|tojson(sort_keys=true) }}", "{{ 'a'.center(5, 'xy') }}", "{{ 'a'.ljust() }}", "{{ 'a'.strip(1) }}", "{{ 'a'.startswith(1) }}", "{{ s[1:2:0] }}", "{{ s['a':] }}", "{{ n[0:1] }}", "{{ [1, 2]|sum(start='') }}",
    "{{ raise_exception('no') }}", "{{ cycler() }}", "{{ namespace(_a=1) }}", "{% set ns = namespace() %}{% set ns._a = 1 %}", "{% set d.a = 1 %}", "{% set nope.a = 1 %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for x in 5 %}{% endfor %}", "{% for x in z %}{% endfor %}", "{% set a, b = 1 %}",
    "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{% endmacro %}{{ f(b=1) }}", "{% macro f() %}{% endmacro %}{% call f() %}x{% endcall %}", "{% call n() %}{% endcall %}", "{% for x in l %}{{ loop(x) }}{% endfor %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% filter length %}abc{% endfilter %}",
    "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% from 'x' import y %}", "{% if %}{% endif %}", "{% if 1 %}", "{% endif %}", "{% for x in l %}{% endif %}", "{% nosuch %}", "{{ }}", "{{ 1 2 }}", "{{ 'a }}", "{{ (1 }}", "{{ 1) }}", "{{ [1 }}", "{{ {1} }}", "{{ a.b. }}", "{{ a[ }}", "{% set 1 = 2 %}", "{% set true = 1 %}",
    "{# x", "{% raw %}x", "{{ x !y }}", "{{ 1 is 2 }}", "{{ a is b is c }}", "{% break %}", "{% for x in l %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}", "{% for loop in l %}{% endfor %}", "{% for x in l %}{% set loop = 1 %}{% endfor %}", "{% block a %}{% endblock %}{% block a %}{% endblock %}", "{% macro m(a, a) %}{% endmacro %}",
    "{% macro m(a=1, b) %}{% endmacro %}", "{{ f(a=1, 2) }}", "{{ f(**a, *b) }}", "{{ f(x=1, x=2) }}", "{% trans %}x{% endtrans %}", "{% do l %}", "{% autoescape %}{% endautoescape %}", "{{ '\\x4' }}", "{{ '\\u12' }}", "{% else %}", "{{ not }}", "{{ * }}", "{{ a | }}", "{{ a.1x }}", "{{ 1if }}", "{% set x | default(y) %}{% endset %}",
]
