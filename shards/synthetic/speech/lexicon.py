"""Words with their phonemes, and the sentences that synthetic talkers say: what is spoken, not how it sounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# ARPAbet, words separated by "|"; "1" marks the stressed vowel of a word that can carry an accent.
_PRONOUNCED = """
the DH AH | a AH | my M AY | our AW ER | every EH1 V R IY | this DH IH S | that DH AE T | we W IY | you Y UW | they DH
EY | i AY | she SH IY | he HH IY | of AH V | in IH N | on AO N | for F AO R | with W IH DH | from F R AH M | by B AY |
over OW1 V ER | under AH1 N D ER | before B IH F AO1 R | after AE1 F T ER | near N IH R | and AE N D | but B AH T |
because B IH K AH Z | when W EH N | while W AY L | if IH F | maybe M EY1 B IY | now N AW1 | today T AH D EY1 | always
AO1 L W EY Z | often AO1 F AH N | never N EH1 V ER | soon S UW1 N | please P L IY1 Z | well W EH1 L | so S OW | father
F AA1 DH ER | mother M AH1 DH ER | people P IY1 P AH L | music M Y UW1 Z IH K | water W AO1 T ER | window W IH1 N D OW
| paper P EY1 P ER | photo F OW1 T OW | river R IH1 V ER | summer S AH1 M ER | winter W IH1 N T ER | morning M AO1 R N
IH NG | evening IY1 V N IH NG | village V IH1 L IH JH | machine M AH SH IY1 N | picture P IH1 K CH ER | question K W
EH1 S CH AH N | answer AE1 N S ER | voice V OY1 S | face F EY1 S | story S T AO1 R IY | weather W EH1 DH ER | bridge B
R IH1 JH | boat B OW1 T | moon M UW1 N | house HH AW1 S | garden G AA1 R D AH N | table T EY1 B AH L | coffee K AO1 F
IY | bread B R EH1 D | apple AE1 P AH L | bird B ER1 D | fire F AY1 ER | game G EY1 M | book B UH1 K | shop SH AA1 P |
thing TH IH1 NG | month M AH1 N TH | number N AH1 M B ER | memory M EH1 M ER IY | video V IH1 D IY OW | camera K AE1 M
R AH | small S M AO1 L | big B IH1 G | blue B L UW1 | warm W AO1 R M | happy HH AE1 P IY | quiet K W AY1 AH T | famous
F EY1 M AH S | beautiful B Y UW1 T AH F AH L | open OW1 P AH N | early ER1 L IY | new N UW1 | old OW1 L D | young Y
AH1 NG | perfect P ER1 F IH K T | simple S IH1 M P AH L | human HH Y UW1 M AH N | strange S T R EY1 N JH | yellow Y
EH1 L OW | brown B R AW1 N | empty EH1 M P T IY | sharp SH AA1 R P | makes M EY1 K S | moves M UW1 V Z | opens OW1 P
AH N Z | follows F AA1 L OW Z | remembers R IH M EH1 M B ER Z | believes B IH L IY1 V Z | forgets F ER G EH1 T S |
watches W AA1 CH IH Z | shows SH OW1 Z | brings B R IH1 NG Z | paints P EY1 N T S | needs N IY1 D Z | finds F AY1 N D
Z | uses Y UW1 Z IH Z | saw S AO1 | bought B AO1 T | found F AW1 N D | made M EY1 D | wrote R OW1 T | moved M UW1 V D
| heard HH ER1 D | loved L AH1 V D | built B IH1 L T | asked AE1 S K T | promised P R AA1 M IH S T | walked W AO1 K T
| waited W EY1 T IH D | laughed L AE1 F T | spoke S P OW1 K | arrived ER AY1 V D | one W AH1 N | two T UW1 | three TH
R IY1 | four F AO1 R | five F AY1 V | six S IH1 K S | seven S EH1 V AH N | eight EY1 T | nine N AY1 N | ten T EH1 N
"""
_WORDS = {word: phones for word, *phones in (entry.split() for entry in _PRONOUNCED.split("|"))}

# Which words may stand where in a template.
_CLASSES = """
det: the a my our every this that
pro: we you they i she he
prep: of in on for with from by over under before after near
join: and but because when while if
adv: maybe now today always often never soon please well so
noun: father mother people music water window paper photo river summer winter morning evening village machine picture
    question answer voice face story weather bridge boat moon house garden table coffee bread apple bird fire game
    book shop thing month number memory video camera
adj: small big blue warm happy quiet famous beautiful open early new old young perfect simple human strange yellow
    brown empty sharp
verb: makes moves opens follows remembers believes forgets watches shows brings paints needs finds uses
past: saw bought found made wrote moved heard loved built asked promised
went: walked waited laughed spoke arrived
num: one two three four five six seven eight nine ten
"""
_KINDS: dict[str, list[str]] = {}
for _token in _CLASSES.split():
    if _token.endswith(":"):
        _KINDS[_token[:-1]] = _current = []
    else:
        _current.append(_token)

_TEMPLATES: tuple[str, ...] = (
    "det adj noun verb det noun",
    "pro past det adj noun prep det noun",
    "adv pro past num adj noun",
    "det noun prep det noun verb det adj noun",
    "pro went prep det noun join det noun verb det noun",
    "num num num join num",
    "adv det noun verb det noun prep det adj noun",
    "pro past det noun join pro went prep det adj noun",
)


@dataclass(frozen=True)
class Phone:
    """One phoneme of an utterance: ARPAbet symbol without stress digit ("SIL" for silence), times in seconds."""

    symbol: str
    start: float
    end: float
    stressed: bool = False
    final: bool = False  # in the last word of a sentence: lengthened, and where pitch falls


def phonemes(word: str) -> list[tuple[str, bool]]:
    """Phonemes of a word in the lexicon as (ARPAbet symbol, stressed); KeyError for a word that is not in it."""
    return [(p.rstrip("1"), p.endswith("1")) for p in _WORDS[word]]


def sentence(rng: np.random.Generator) -> list[str]:
    """A random grammatical sentence as a list of words."""
    template = _TEMPLATES[rng.integers(len(_TEMPLATES))].split()
    words = [str(rng.choice(_KINDS[kind])) for kind in template]
    for i in range(len(words) - 1):  # "a apple" is not English, and the ear hears it
        if words[i] == "a" and _WORDS[words[i + 1]][0][0] in "AEIOU":
            words[i] = "the"
    return words
