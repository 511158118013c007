"""Every metric against hand-made answers, published vectors of SacreBLEU, and definitions written otherwise."""

import math

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from rein.errors import UserError
from rein.evals.metrics import METRICS, Metric, moses
from rein.evals.scores import macro_f1
from rein.evals.task import Answer, Option, Problem

# SacreBLEU's own test cases: two references of three sentences, one translation of each.
FIRST = ("The dog bit the man.", "It was not unexpected.", "The man bit him first.")
SECOND = ("The dog had bit the man.", "No one was surprised.", "The man had bitten the dog.")
SAID = ("The dog bit the man.", "It wasn't surprising.", "The man had just bitten him.")


def chosen(choice, gold, completions=(" yes", " no"), **more):
    options = tuple(Option("", completion) for completion in completions)
    return Answer(Problem("p", options=options, gold=gold, **more), 0, 0, choice=choice)


def written(text, *answers, **more):
    return Answer(Problem("p", answers=answers, **more), 0, 0, text=text)


def value(name, answer):
    return METRICS[name].of(answer)


def whole(name, answers):
    metric = METRICS[name]
    return metric.of_rows([metric.counts(answer) for answer in answers])


def test_every_metric_is_either_a_mean_or_a_score_of_sums():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert (metric.of is None) != (metric.of_counts is None), name
        assert (metric.counts is None) == (metric.of_counts is None), name
        assert metric.better == ("lower" if "perplexity" in name or "bits" in name else "higher")


def test_the_names_that_tasks_may_use_are_all_there():
    promised = (
        "accuracy exact_match f1 f1_drop f1_coqa f1_quac em_squad f1_squad macro_f1 multirc_accuracy f1a "
        "record_em record_f1 lambada_last_token lambada_last_word lambada_filtered perplexity_last_token "
        "perplexity_last_word perplexity bits_per_byte bits_per_character bleu_sb bleu_mb rouge1 rouge2 rougeL "
        "rouge_average"
    )
    assert set(promised.split()) <= METRICS.keys()


# ------------------------------------------------------------------------------------------------------- choices


def test_accuracy_asks_whether_the_right_option_was_chosen():
    assert value("accuracy", chosen(1, 1)) == 1
    assert value("accuracy", chosen(0, 1)) == 0
    assert value("accuracy", written(" Yes.", "yes")) == 1, "a written answer is matched"


def test_problems_of_one_question_are_right_or_wrong_together():
    metric = METRICS["multirc_accuracy"]
    assert metric.unit_of(chosen(0, 0, question="q7")) == "q7"
    assert (metric.of(chosen(0, 0)), metric.of(chosen(1, 0))) == (1, 0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_macro_f1_is_the_mean_of_each_classs_f1(pairs):
    answers = [chosen(said, true, (" true", " false", " neither")) for said, true in pairs]
    scores = []
    for k in {label for pair in pairs for label in pair}:
        hits = sum(said == true == k for said, true in pairs)
        precision = hits / max(sum(said == k for said, _ in pairs), 1)
        recall = hits / max(sum(true == k for _, true in pairs), 1)
        scores.append(2 * precision * recall / (precision + recall) if hits else 0)
    assert whole("macro_f1", answers) == pytest.approx(sum(scores) / len(scores))


def test_macro_f1_is_that_of_fine_tuning_where_every_class_is_a_label():
    rng = np.random.default_rng(0)
    said, true = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    answers = [chosen(int(s), int(t), ("a", "b", "c")) for s, t in zip(said, true, strict=True)]
    assert whole("macro_f1", answers) == pytest.approx(macro_f1(said.astype(float), true.astype(float)).value)


def test_macro_f1_refuses_what_cannot_be_classes():
    with pytest.raises(UserError, match="p has 20"):
        whole("macro_f1", [chosen(0, 1, [str(i) for i in range(20)])])


@pytest.mark.parametrize("completions", [("- [True] Rollo", "- [False] Rollo"), (" yes", " no")])
def test_f1a_is_the_f1_of_what_is_said_to_be_true(completions):
    # said true and is: 2; said true and is not: 1; true and not said: 1; neither: 3
    pairs = [(0, 0)] * 2 + [(0, 1)] + [(1, 0)] + [(1, 1)] * 3
    assert whole("f1a", [chosen(said, true, completions) for said, true in pairs]) == 2 * 2 / (3 + 3)
    assert whole("f1a", [chosen(1, 1, completions)]) == 0, "nothing true, nothing said"


def test_f1a_refuses_options_that_affirm_nothing():
    with pytest.raises(UserError, match="begin with true or false") as error:
        whole("f1a", [chosen(0, 1, (" Rollo", " Cnut"))])
    assert "' Rollo'" in str(error.value)


def test_record_compares_the_names_of_entities():
    names = ("Barack Obama", "Michelle Obama", "the White House", "White House")
    completions = [f"- Obama met {name} at the White House." for name in names]

    def found(choice, *answers):
        answer = chosen(choice, 1, completions, answers=answers)
        return value("record_em", answer), value("record_f1", answer)

    assert found(1, "Michelle Obama") == (1, 1)
    assert found(0, "Michelle Obama") == (0, 0.5)
    assert found(0, "Michelle Obama", "Barack Obama") == (1, 1), "several names may be right"
    assert found(3, "Michelle Obama") == (0, 0)
    answer = chosen(2, 3, completions, answers=("White House",))
    assert value("record_em", answer) == 1, "articles aside"


def test_record_refuses_options_that_differ_in_more_than_a_name():
    with pytest.raises(UserError, match="differ in one name"):
        value("record_em", chosen(0, 1, ("- Cnut ran.", "- Rollo sat."), answers=("Rollo",)))


# ------------------------------------------------------------------------------------------------ written answers


def test_each_data_set_has_its_own_rule():
    assert value("exact_match", written("38", "-38")) == 0
    assert value("em_squad", written("38", "-38")) == 1
    assert value("em_triviaqa", written("AC-DC", "AC DC")) == 1
    assert value("em_squad", written("AC-DC", "AC DC")) == 0
    assert value("f1", written("Duke of Normandy", "Rollo", "Normandy")) == 0.5
    assert value("f1_squad", written("Duke of Normandy", "Normandy")) == 0.5
    assert value("f1_coqa", written("yes", "yes", "no", "no")) == 2 / 3
    assert value("f1_quac", written("CANNOTANSWER", "CANNOTANSWER")) == 1
    assert value("f1_quac", written("x", "in May", "never")) is None
    assert value("f1_drop", written("4 yards", "5 yards")) == 0


# -------------------------------------------------------------------------------------------------------- LAMBADA


def lambada(**more):
    problem = Problem("p", options=(Option("It was a", " signal"),), gold=0)
    return Answer(problem, 0, 0, choice=0, **more)


def test_lambada_is_scored_by_the_last_token_the_last_word_and_without_stop_words():
    answer = lambada(greedy=(False,), greedy_last=(True,), greedy_filtered=(True,))
    assert value("lambada_last_token", answer) == 1
    assert value("lambada_last_word", answer) == 0
    assert value("lambada_filtered", answer) == 1


def test_lambadas_perplexities_are_geometric_means_over_words():
    answers = [lambada(logprobs=(math.log(p),), last_logprobs=(math.log(q),)) for p, q in ((1 / 8, 1 / 2), (1 / 2, 1))]
    assert whole("perplexity_last_word", answers) == pytest.approx(4)
    assert whole("perplexity_last_token", answers) == pytest.approx(math.sqrt(2))


# ----------------------------------------------------------------------------------------------- language models


def test_perplexity_is_per_unit_as_published_whatever_the_tokens():
    texts = [Answer(Problem("a", text="no matter", units=3), 0, 0, logprobs=(-6.0,), n_tokens=(100,)),
             Answer(Problem("b", text="é", units=1), 0, 0, logprobs=(-2.0,), n_tokens=(1,))]  # fmt: skip
    assert whole("perplexity", texts) == pytest.approx(math.exp(8 / 4))
    assert whole("bits_per_byte", texts) == pytest.approx(8 / math.log(2) / (9 + 2))
    assert whole("bits_per_character", texts) == pytest.approx(8 / math.log(2) / (9 + 1))


def test_a_hopeless_model_has_a_perplexity_all_the_same():
    text = Answer(Problem("a", text="x", units=1), 0, 0, logprobs=(-1e6,))
    assert whole("perplexity", [text]) == math.exp(700)


def test_a_text_without_units_is_refused():
    with pytest.raises(UserError, match="needs their number"):
        whole("perplexity", [Answer(Problem("a", text="x"), 0, 0, logprobs=(-1.0,))])


# ---------------------------------------------------------------------------------------------------------- BLEU


def translations(said, *references, language="en"):
    return [written(text, *right, parts={"language": language}) for text, *right in zip(said, *references, strict=True)]


def test_bleu_sb_is_sacrebleus_published_vector():
    assert whole("bleu_sb", translations(SAID, FIRST, SECOND)) == pytest.approx(43.91623493, abs=1e-8)
    assert whole("bleu_sb", translations(("", "", ""), FIRST, SECOND)) == 0


def test_sacrebleu_still_gives_its_published_vectors():
    for options, score in (({}, 48.530827), ({"tokenize": "none"}, 49.1919566), ({"tokenize": "intl"}, 43.91623493)):
        assert sacrebleu.corpus_bleu(SAID, [FIRST, SECOND], **options).score == pytest.approx(score, abs=1e-8)
    counts = [9, 7, 5, 3], [10, 8, 6, 4], 11, 11
    assert sacrebleu.BLEU.compute_bleu(*counts).score / 100 == pytest.approx(0.8375922397, abs=1e-8)


def test_the_score_of_sums_is_the_score_of_the_corpus():
    rng = np.random.default_rng(0)
    words = ["the", "The", "dog,", "man's", "l'été", "3.5", "1,000", "—", "“x”", "bit-by-bit", "U.S.", "£5"]
    said, right = ([" ".join(rng.choice(words, rng.integers(1, 20))) for _ in range(40)] for _ in range(2))
    ours = whole("bleu_sb", translations(said, right))
    assert ours == pytest.approx(sacrebleu.corpus_bleu(said, [right], tokenize="intl").score, abs=1e-10)


def test_bleu_sb_has_the_signature_that_the_paper_prints():
    metric = sacrebleu.BLEU(tokenize="intl")
    metric.corpus_score(SAID, [FIRST])
    name, version = metric.get_signature().format().rsplit("|", 1)
    assert name == "nrefs:1|case:mixed|eff:no|tok:intl|smooth:exp"
    assert version.startswith("version:2.")


def test_bleu_mb_is_zero_without_a_common_sequence_of_four():
    """multi-bleu.perl does not smooth."""
    near, far = translations(["a b c d e"], ["a b c d f"]), translations(["a b c x e"], ["a b c d e"])
    assert whole("bleu_mb", near) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert whole("bleu_mb", far) == 0
    assert whole("bleu_sb", far) > 0


def test_bleu_mb_parts_words_as_moses_does_for_the_language():
    """French parts an article behind its apostrophe, English a clitic before it: l' été, but it 's."""
    short = translations(["l'été dernier"], ["l'été passé"], language="fr")
    assert METRICS["bleu_mb"].counts(short[0])[:2] == (2, 1)  # "l'", "été"; "l' été"
    assert METRICS["bleu_mb"].counts(short[0])[8:] == (3, 3)


@pytest.mark.parametrize(
    ("language", "said", "right"),
    [
        ("fr", "« Oui », dit-elle\u00a0; c’est l’été.", "\" Oui \" , dit-elle ; c' est l' été ."),
        ("de", "Das sind z.B. 1.000 „Häuser“ – oder?", 'Das sind z.B. 1.000 " Häuser " - oder ?'),
        ("ro", "Numele de fişiere şi țări în București.", "Numele de fisiere si tari in Bucuresti ."),
        ("en", "It’s Mr. Smith’s (old) house…", "It 's Mr. Smith 's ( old ) house ..."),
    ],
)
def test_words_are_those_of_mosess_perl_programs(language, said, right):
    """`right` is what the four programs, one behind the other, print for `said`."""
    assert moses(said, language) == right
    assert METRICS["bleu_mb"].counts(written(said, said, parts={"language": language}))[8] == len(right.split())


# --------------------------------------------------------------------------------------------------------- ROUGE


def test_rouge_is_stemmed_and_reads_lines_as_sentences():
    answer = written("the cats sat\na dog ran", "dogs running", "a dog ran\nthe cat was sitting")
    ones = 2 * 5 / (6 + 7)  # a, dog, ran, the, cat
    twos = 2 * 3 / (5 + 6)  # a dog, dog ran, the cat
    assert value("rouge1", answer) == pytest.approx(ones)
    assert value("rouge2", answer) == pytest.approx(twos)
    assert value("rougeL", answer) == pytest.approx(ones), "each sentence finds its own, in whatever order"
    mean = (value("rouge1", answer) + value("rouge2", answer) + value("rougeL", answer)) / 3
    assert value("rouge_average", answer) == pytest.approx(mean)


def test_a_metric_of_ones_own_is_the_same_few_lines():
    longest = Metric(
        "longest", "1", counts=lambda answer: (len(answer.text), 1), of_counts=lambda sums: sums[0] / sums[1]
    )
    assert longest.of_rows([longest.counts(written(text)) for text in ("ab", "abcd")]) == 3
