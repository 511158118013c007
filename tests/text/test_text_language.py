"""Languages of plain sentences, and of what has none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.text.documents import Document, Dropped
from rein.text.language import SAMPLE_CHARS, identify, keep_language

SENTENCES = {
    "en": "My neighbour keeps bees on her roof, and every autumn she brings us a jar of honey.",
    "de": "Meine Nachbarin hält Bienen auf dem Dach und bringt uns jeden Herbst ein Glas Honig.",
    "fr": "Ma voisine élève des abeilles sur son toit et nous apporte un pot de miel chaque automne.",
    "es": "Mi vecina cría abejas en el tejado y cada otoño nos trae un tarro de miel.",
    "it": "La mia vicina alleva le api sul tetto e ogni autunno ci porta un vasetto di miele.",
    "pt": "A minha vizinha cria abelhas no telhado e todos os outonos traz-nos um frasco de mel.",
    "nl": "Mijn buurvrouw houdt bijen op haar dak en brengt ons elke herfst een pot honing.",
    "pl": "Moja sąsiadka hoduje pszczoły na dachu i każdej jesieni przynosi nam słoik miodu.",
    "sv": "Min granne har bin på taket och varje höst kommer hon med en burk honung till oss.",
    "fi": "Naapurini pitää mehiläisiä katollaan ja tuo meille joka syksy purkin hunajaa.",
    "tr": "Komşum çatısında arı besliyor ve her sonbaharda bize bir kavanoz bal getiriyor.",
    "ru": "Моя соседка держит пчёл на крыше и каждую осень приносит нам банку мёда.",
    "el": "Η γειτόνισσά μου έχει μέλισσες στη στέγη και κάθε φθινόπωρο μας φέρνει ένα βάζο μέλι.",
    "ja": "隣の人は屋根の上でミツバチを飼っていて、毎年秋になると蜂蜜を一瓶持ってきてくれます。",
    "zh": "我的邻居在屋顶上养蜂，每年秋天都会给我们送来一罐蜂蜜。",
    "ko": "이웃집 아주머니는 지붕 위에서 벌을 키우시고 가을마다 꿀 한 병을 가져다주십니다.",
    "ar": "جارتي تربي النحل على سطح منزلها وتحضر لنا كل خريف جرة من العسل.",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_the_language_of_a_sentence(language):
    found, confidence = identify(SENTENCES[language])
    assert found == language
    assert 0.8 < confidence <= 1


@pytest.mark.parametrize("text", ["", " \n\t", "12 345,67 + 89 = ?", "!?… — ***", "\U0001f600\U0001f680"])
def test_without_letters_there_is_no_language(text):
    assert identify(text) == ("und", 0.0)


def test_code_is_not_taken_for_a_language_with_confidence():
    code = '#include <stdio.h>\nint main(void) { for (int i = 0; i < 9; i++) printf("%d\\n", i); return 0; }'
    assert identify(code)[1] < 0.5


@given(st.text(max_size=300))
@settings(deadline=None)
def test_any_text_has_a_code_and_a_confidence(text):
    language, confidence = identify(text)
    assert language.isalpha()
    assert 2 <= len(language) <= 3
    assert 0 <= confidence <= 1


def test_a_long_text_is_read_at_three_places():
    n = SAMPLE_CHARS * 50
    german = (SENTENCES["de"] + " ") * (n // len(SENTENCES["de"]))
    assert identify("Cookies. Home. Log in. About us. Contact." + german)[0] == "de"
    started = time.perf_counter()
    identify(german * 200)
    assert time.perf_counter() - started < 0.1


def test_wanted_languages_are_kept_and_named():
    document = Document(SENTENCES["de"], id="7", source="web", metadata={"path": "a.html"})
    kept = keep_language(document, {"en", "de"}, 0.9)
    assert kept == Document(SENTENCES["de"], "7", "web", metadata={"path": "a.html", "language": "de"})
    assert document.metadata == {"path": "a.html"}


def test_other_languages_and_doubtful_ones_go_with_their_reason():
    document = Document(SENTENCES["fr"], id="7", source="web")
    assert keep_language(document, {"en"}, 0.0) == Dropped("7", "another language")
    doubtful = Document("Total 5 min", id="8", source="web")
    language, confidence = identify(doubtful.text)
    assert keep_language(doubtful, {language}, confidence + 0.001) == Dropped("8", "language uncertain")
    assert isinstance(keep_language(doubtful, {language}, confidence), Document)
    assert keep_language(Document("…", id="9", source="web"), {"en"}, 0.0) == Dropped("9", "another language")
