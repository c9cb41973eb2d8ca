"""GPT-2's ids of a text, with an excerpt of its vocabulary; needs no other library or file."""

from base64 import b64encode

import pytest

from tok.formats.tiktoken import read_tiktoken
from tok.tokenizer import BPETokenizer
from tok.vocabulary import byte_ranks, from_printable, inverse

TEXT = """It's the fox who'll sing, isn't it? Zoë's café, 年号 2024!

ROMEO:
O, she doth teach the torches to burn bright!
"""

# Every token of at least two bytes within a pre-token of TEXT, as in GPT-2's encoder.json, and its
# id. No other merge can apply, so the ids are the same as with the whole vocabulary.
TOKENS = """
Ġt 256 he 258 in 259 Ġthe 262 Ġs 264 Ġw 266 Ġc 269 it 270 is 271 or 273 es 274 Ġb 275 Ġf 277 ing
278 Ġto 284 Ġd 288 Ġth 294 ll 297 ot 313 Ġis 318 ig 328 ac 330 ur 333 's 338 Ġit 340 Ġwh 348 ch
354 Ġ2 362 ri 380 igh 394 th 400 Ġsh 427 ight 432 gh 456 Ġdo 466 't 470 Ġwho 508 Ġte 573 ach 620
te 660 Ġshe 673 urn 700 ng 782 Ġbu 809 oth 849 Ġbr 865 hes 956 It 1026 ox 1140 Ġ20 1160 ĠZ 1168
the 1169 'll 1183 20 1238 Ġca 1275 Ġi 1312 to 1462 sh 1477 br 1671 Ġsing 1702 24 1731 af 1878 wh
1929 ches 2052 Ġisn 2125 che 2395 Ã© 2634 OM 2662 02 2999 right 3506 Ġburn 4245 ht 4352 Ġbur 4356
rig 4359 Ġteach 4545 do 4598 EO 4720 rc 6015 Ġbright 6016 bur 6236 fo 6513 ca 6888 she 7091 Ġtor
7332 Ġsin 7813 who 8727 ho 8873 Ġtea 8887 Ġå 10263 burn 10899 bu 11110 Ġfo 11511 ME 11682 sing
12215 fox 12792 tor 13165 RO 13252 si 13396 OME 13649 sn 16184 Ġdot 16605 ea 18213 202 19004 Ġcaf
19945 åı 20998 Ġfox 21831 Ġ202 22131 Ġbrig 24393 orc 24449 dot 26518 Ã« 26689 each 27379 Ġtorch
28034 bright 29199 Ġbri 31013 sin 31369 ĠZo 31645 å¹ 33176 ROM 33676 Ġsi 33721 rn 35906 ĠcafÃ©
40304 024 40839 Ġ2024 48609 Ġtorches 49497
"""

IDS = """
1026 338 262 21831 508 1183 1702 11 2125 470 340 30 31645 26689 338 40304 11 10263 117 112
20998 115 48609 0 198 198 33676 4720 25 198 46 11 673 288 849 4545 262 49497 284 4245 6016 0
198
"""


@pytest.fixture(scope="module")
def excerpt():
    """The tokenizer of the excerpt, and the mapping from its ids to GPT-2's."""
    words = TOKENS.split()
    ids = dict(zip(map(from_printable, words[::2]), map(int, words[1::2])))
    tokens = [bytes([byte]) for byte in inverse(byte_ranks("gpt2"))] + list(ids)
    lines = [b"%s %d\n" % (b64encode(token), i) for i, token in enumerate(tokens)]
    tokenizer = BPETokenizer(**read_tiktoken(b"".join(lines), {}), pattern="gpt2")
    return tokenizer, [*range(256), *ids.values()]


def test_gpt2s_ids(excerpt):
    tokenizer, gpt2_ids = excerpt
    expected = list(map(int, IDS.split()))
    assert [gpt2_ids[i] for i in tokenizer.encode(TEXT)] == expected
    long = tokenizer.encode_array(TEXT * 100)  # in arrays
    assert [gpt2_ids[i] for i in long] == expected * 100
    assert tokenizer.decode(long) == TEXT * 100
