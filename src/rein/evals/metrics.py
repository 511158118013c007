"""What a task's score is: a number for each Answer, or one for all Answers of a task.

Flow     Answers → `METRICS[name].of(answer)` → values in [0, 1] → statistics.summarise
         Answers → `METRICS[name].counts(answer)` → one row of numbers each → `of_rows`: the score of their sums

The second way is that of scores that are no mean over problems: BLEU, macro F1, perplexity. Of an answer, its counts
are all that has to be kept, and a bootstrap draws counts, not texts.

Each metric is one plain function with its formula and the evaluation script that it follows; the table at the end
says which names there are. None as a value leaves the problem out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics.bleu import BLEU

from rein.errors import UserError
from rein.evals import rouge, text_match
from rein.evals.task import Answer, Problem
from rein.evals.text_match import best, leave_one_out

Numbers = npt.NDArray[np.float64]

CLASSES = 16  # that macro_f1 knows at most


@dataclass(frozen=True)
class Metric:
    """A score: one number for each problem (`of`), or one for all of them, of what their answers' `counts` sum to.

    Units    `of` gives values in [0, 1], which are shown as percentages; so does `of_counts` where `unit` is "%".
    """

    name: str
    unit: str  # "%", "1", "bits/byte", "bits/character", "BLEU"
    better: Literal["higher", "lower"] = "higher"
    of: Callable[[Answer], float | None] | None = None
    counts: Callable[[Answer], tuple[float, ...]] | None = None
    of_counts: Callable[[Numbers], float] | None = None
    unit_of: Callable[[Answer], str] | None = None  # problems of one unit are right or wrong together

    def of_rows(self, rows_NC: Sequence[Sequence[float]] | Numbers) -> float:
        """The score of many answers together, of what each one's `counts` are."""
        assert self.of_counts is not None, f"{self.name} is a mean over problems"
        return self.of_counts(np.sum(rows_NC, axis=0))


# ------------------------------------------------------------------------------------------------------- choices


def accuracy(answer: Answer) -> float:
    """1 where the right option was chosen; of a written answer, its exact match.

    Source   Brown 2020 §2.4.
    """
    if not answer.problem.options:
        return exact_match(answer)
    return float(answer.choice == answer.problem.gold)


def class_counts(answer: Answer) -> tuple[float, ...]:
    """Of each class: is it both said and true, is it said, is it true. The options are the classes.

    Raises   UserError when there are more than macro_f1 has room for.
    """
    said, true = answer.choice, _gold(answer)  # said in words, it may be none
    if len(answer.problem.options) > CLASSES:
        raise UserError(
            f"macro_f1 is for up to {CLASSES} classes, but {answer.problem.id} has {len(answer.problem.options)}.",
            "Score the task by accuracy.",
        )
    return tuple(float(one) for k in range(CLASSES) for one in (said == k == true, said == k, true == k))


def wsc_accuracy(answer: Answer) -> float:
    """1 where the text names the noun that the pronoun means, or names another where it means another.

    It names the noun where the words of one are all among those of the other.

    Source   Raffel 2020, whose rule for WSC in free form this is.
    """
    said, noun = (set(text_match.normalise(text).split()) for text in (_text(answer), _right(answer)[0]))
    named = bool(said) and (said <= noun or noun <= said)
    return float(named == (answer.problem.gold == 1))


def macro_f1(counts: Numbers) -> float:
    """The mean over classes, those that are said or true anywhere, of 2 TP / (2 TP + FP + FN).

    Source   SuperGLUE's score of CB (Wang 2019), which is scikit-learn's f1_score(average="macro").
    """
    both_C, said_C, true_C = counts.reshape(CLASSES, 3).T
    there_C = said_C + true_C > 0
    return float(np.mean(2 * both_C[there_C] / (said_C + true_C)[there_C]))


def affirmed_counts(answer: Answer) -> tuple[float, ...]:
    """Whether an answer is both said to be true and true, is said to be, is.

    Raises   UserError when the options are not true and false, or yes and no.
    """
    said, true = (option is not None and _affirms(answer.problem, option) for option in (answer.choice, _gold(answer)))
    return float(said and true), float(said), float(true)


def f1a(counts: Numbers) -> float:
    """F1 of the class True over the answers of all MultiRC's questions: 2 TP / (2 TP + FP + FN), 0 without any.

    Source   Khashabi 2018; SuperGLUE.
    """
    both, said, true = counts
    return float(2 * both / max(said + true, 1))


def record_em(answer: Answer) -> float:
    """1 where the chosen entity is one of the right ones, by name.

    Source   Zhang 2018 (ReCoRD): SQuAD's normalisation.
    """
    return best(text_match.same, _entity(answer), _right(answer))


def record_f1(answer: Answer) -> float:
    """The overlap in words of the chosen entity's name with that of the right one it is nearest to.

    Source   Zhang 2018 (ReCoRD): SQuAD's F1.
    """
    return best(text_match.f1, _entity(answer), _right(answer))


# ------------------------------------------------------------------------------------------------ written answers


def exact_match(answer: Answer) -> float:
    """1 where the text is one of the answers up to case, articles and punctuation; a number must be the same number.

    Source   SQuAD's normalisation, as for Natural Questions and WebQuestions.
    Differs  A number keeps its sign and its point, which are punctuation to SQuAD: 38 is not −38.
    """
    return best(text_match.same_or_equal, _text(answer), _right(answer))


def em_triviaqa(answer: Answer) -> float:
    """1 where the text is one of the answers by TriviaQA's script, to which punctuation is a space.

    Source   Joshi 2017.
    """
    return best(text_match.same_trivia, _text(answer), _right(answer))


def em_squad(answer: Answer) -> float:
    """1 where the text is one of the answers up to case, articles and punctuation.

    Source   Rajpurkar 2018, SQuAD 2.0's script.
    """
    return best(text_match.same, _text(answer), _right(answer))


def f1_squad(answer: Answer) -> float:
    """Overlap in words with the answer that it is nearest to.

    Source   Rajpurkar 2018, SQuAD 2.0's script.
    """
    return best(text_match.f1, _text(answer), _right(answer))


def f1_coqa(answer: Answer) -> float:
    """Overlap in words, each of the people who answered left out in turn.

    Source   Reddy 2019, CoQA's script.
    """
    return leave_one_out(text_match.f1, _text(answer), _right(answer))


def f1_quac(answer: Answer) -> float | None:
    """Overlap in words, each person left out in turn; questions that people disagree about do not count.

    Source   Choi 2018, QuAC's script.
    """
    return text_match.quac_f1(_text(answer), _right(answer))


def f1_drop(answer: Answer) -> float:
    """Overlap in words of the things an answer names, where one of its numbers is there.

    Source   Dua 2019, DROP's script.
    """
    return text_match.drop_scores(_text(answer), _right(answer))[1]


# -------------------------------------------------------------------------------------------------------- LAMBADA


def lambada_last_token(answer: Answer) -> float:
    """1 where the last token of the word is the likeliest behind all before it, the word's own first tokens included.

    Source   The scoring behind Radford 2019 §3.3's and Brown 2020's zero-shot accuracies.
    """
    return float(answer.greedy_last[_gold(answer)])


def lambada_last_word(answer: Answer) -> float:
    """1 where every token of the word is the likeliest behind those before it.

    Source   Paperno 2016: the task is to predict the last word.
    """
    return float(answer.greedy[_gold(answer)])


def lambada_filtered(answer: Answer) -> float:
    """`lambada_last_word` where no stop word may be predicted.

    Source   Radford 2019 §3.3.
    """
    return float(answer.greedy_filtered[_gold(answer)])


def last_token_nats(answer: Answer) -> tuple[float, ...]:
    """−log p of the word's last token, and 1 word."""
    return -answer.last_logprobs[_gold(answer)], 1


def last_word_nats(answer: Answer) -> tuple[float, ...]:
    """−log p of the whole word, and 1 word."""
    return -answer.logprobs[_gold(answer)], 1


# ----------------------------------------------------------------------------------------------- language models


def unit_nats(answer: Answer) -> tuple[float, ...]:
    """−Σ log p of a text, and the units it has as published."""
    return _nats(answer), answer.problem.units


def byte_nats(answer: Answer) -> tuple[float, ...]:
    """−Σ log p of a text, and its bytes in UTF-8."""
    return _nats(answer), len(answer.problem.text.encode())


def character_nats(answer: Answer) -> tuple[float, ...]:
    """−Σ log p of a text, and its Unicode characters."""
    return _nats(answer), len(answer.problem.text)


def perplexity(counts: Numbers) -> float:
    """exp(−Σ log p / Σ units): per unit of the text as published, whatever the tokens; of LAMBADA, per word.

    Raises   UserError when the task does not say how many units its texts have.
    Source   Radford 2019 §3.1.
    """
    return math.exp(min(_per_unit(counts), 700.0))  # the largest that a float holds is exp(709)


def bits(counts: Numbers) -> float:
    """−Σ log p / ln 2 / Σ bytes, or characters.

    Raises   UserError when the task's texts are empty.
    """
    return _per_unit(counts) / math.log(2)


# --------------------------------------------------------------------------------------- translations, summaries


def sacrebleu_counts(answer: Answer) -> tuple[float, ...]:
    """Matching and all n-grams, n = 1 … 4, then the words of both sides, by SacreBLEU's tokens "intl"."""
    return _bleu_counts(_SACREBLEU, _text(answer), _right(answer))


def moses_counts(answer: Answer) -> tuple[float, ...]:
    """The same of words as Moses parts them in the language of `parts["language"]`, or English."""
    language = answer.problem.parts.get("language", "en")
    return _bleu_counts(
        _MULTI_BLEU, moses(_text(answer), language), [moses(right, language) for right in _right(answer)]
    )


@lru_cache(maxsize=1 << 14)  # references come again behind every number of shots
def moses(text: str, language: str) -> str:
    """A text as Moses's programs leave it in the steps of XLM, words parted by spaces.

    Unicode's punctuation to ASCII; punctuation normalised; control characters out; for Romanian, the marks at letters
    off; words parted, without escapes.

    Example  >>> print(moses("« Oui », c’est l’été.", "fr"))
             " Oui " , c' est l' été .
    Source   Conneau & Lample 2019, released code.
    """
    normalised, parted = _moses_tools(language)
    text = normalised(text)
    return parted(text.translate(_ROMANIAN) if language == "ro" else text)


def bleu_sb(counts: Numbers) -> float:
    """SacreBLEU: BLEU+case.mixed+numrefs.1+smooth.exp+tok.intl.

    Source   Brown 2020 §3.3 and Appendix H, "BLEU-sb"; Post 2018.
    """
    return _bleu(counts, "exp")


def bleu_mb(counts: Numbers) -> float:
    """What multi-bleu.perl computes: BLEU without smoothing, on Moses's words.

    Source   Brown 2020 §3.3 and Appendix H, "BLEU-mb"; Papineni 2002; Conneau & Lample 2019 for XLM's steps.
    Differs  Moses's words come from sacremoses, not from the Perl programs; tests hold it to what those print.
    """
    return _bleu(counts, "none")


def rouge1(answer: Answer) -> float:
    """F1 of words, stemmed, with the reference that it is nearest to.

    Source   Lin 2004; options -n 1 -m of ROUGE-1.5.5.
    """
    return _rouge_f1(answer, 0)


def rouge2(answer: Answer) -> float:
    """F1 of pairs of words, stemmed.

    Source   Lin 2004; options -n 2 -m of ROUGE-1.5.5.
    """
    return _rouge_f1(answer, 1)


def rougeL(answer: Answer) -> float:
    """F1 of longest common subsequences, stemmed, line by line as sentences.

    Source   Lin 2004; ROUGE-L with option -m of ROUGE-1.5.5.
    """
    return _rouge_f1(answer, 2)


def rouge_average(answer: Answer) -> float:
    """The mean of ROUGE-1, ROUGE-2 and ROUGE-L.

    Source   Radford 2019, Table 4.
    """
    return (rouge1(answer) + rouge2(answer) + rougeL(answer)) / 3


# -------------------------------------------------------------------------------------------------- table of names


def _question(answer: Answer) -> str:
    return answer.problem.question


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "%", of=accuracy),
        Metric("wsc_accuracy", "%", of=wsc_accuracy),
        Metric("exact_match", "%", of=exact_match),
        Metric("em_triviaqa", "%", of=em_triviaqa),
        Metric("em_squad", "%", of=em_squad),
        Metric("f1", "%", of=f1_squad),
        Metric("f1_squad", "%", of=f1_squad),
        Metric("f1_coqa", "%", of=f1_coqa),
        Metric("f1_quac", "%", of=f1_quac),
        Metric("f1_drop", "%", of=f1_drop),
        Metric("macro_f1", "%", counts=class_counts, of_counts=macro_f1),
        Metric("multirc_accuracy", "%", of=accuracy, unit_of=_question),
        Metric("f1a", "%", counts=affirmed_counts, of_counts=f1a),
        Metric("record_em", "%", of=record_em),
        Metric("record_f1", "%", of=record_f1),
        Metric("lambada_last_token", "%", of=lambada_last_token),
        Metric("lambada_last_word", "%", of=lambada_last_word),
        Metric("lambada_filtered", "%", of=lambada_filtered),
        Metric("perplexity_last_token", "1", "lower", counts=last_token_nats, of_counts=perplexity),
        Metric("perplexity_last_word", "1", "lower", counts=last_word_nats, of_counts=perplexity),
        Metric("perplexity", "1", "lower", counts=unit_nats, of_counts=perplexity),
        Metric("bits_per_byte", "bits/byte", "lower", counts=byte_nats, of_counts=bits),
        Metric("bits_per_character", "bits/character", "lower", counts=character_nats, of_counts=bits),
        Metric("bleu_sb", "BLEU", counts=sacrebleu_counts, of_counts=bleu_sb),
        Metric("bleu_mb", "BLEU", counts=moses_counts, of_counts=bleu_mb),
        Metric("rouge1", "%", of=rouge1),
        Metric("rouge2", "%", of=rouge2),
        Metric("rougeL", "%", of=rougeL),
        Metric("rouge_average", "%", of=rouge_average),
    )
}


# -------------------------------------------------------------------------------------------------------- inside


def _text(answer: Answer) -> str:
    assert answer.text is not None, f"{answer.problem.id} was not answered in words, but its metric reads words"
    return answer.text


def _right(answer: Answer) -> tuple[str, ...]:
    assert answer.problem.answers, f"{answer.problem.id} has no right answers to compare with"
    return answer.problem.answers


def _gold(answer: Answer) -> int:
    assert answer.problem.gold is not None, f"{answer.problem.id} has no right option"
    return answer.problem.gold


def _nats(answer: Answer) -> float:
    return -math.fsum(answer.logprobs)


def _per_unit(counts: Numbers) -> float:
    nats, units = counts
    if not units:
        raise UserError(
            "A score per word, byte or character needs their number, but the texts of this task have 0.",
            "Give Problem.units with each text, and texts that are not empty.",
        )
    return float(nats / units)


def _affirms(problem: Problem, option: int) -> bool:
    word = re.match(r"\W*(\w*)", problem.options[option].completion)
    if word is None or word[1].lower() not in ("true", "false", "yes", "no"):
        raise UserError(
            f"f1a needs options that begin with true or false, or yes or no, but one of {problem.id} is "
            f"{problem.options[option].completion!r}.",
            "Score the task by accuracy.",
        )
    return word[1].lower() in ("true", "yes")


def _entity(answer: Answer) -> str:
    """The name that was chosen, "" if none was: what its completion has where the right one has a right name.

    A name may stand in the query a second time; the place that is filled in is the one around which all options say
    the same.
    """
    completions = [option.completion for option in answer.problem.options]
    right = completions[_gold(answer)]
    said = right if answer.choice is None else completions[answer.choice]
    for name in answer.problem.answers:
        for place in re.finditer(re.escape(name), right):
            before, after = right[: place.start()], right[place.end() :]
            if all(text.startswith(before) and text[len(before) :].endswith(after) for text in completions):
                return "" if answer.choice is None else said[len(before) : len(said) - len(after)]
    raise UserError(
        f"record_em and record_f1 need options that differ in one name, but those of {answer.problem.id} do not: "
        f"{right!r} has none of {list(answer.problem.answers)} where they differ.",
        "Score the task by accuracy.",
    )


_SACREBLEU = BLEU(tokenize="intl", smooth_method="exp", effective_order=True)
_MULTI_BLEU = BLEU(tokenize="none", smooth_method="none", effective_order=True, force=True)
_ROMANIAN = str.maketrans("ŞşŢţȘșȚțĂăÂâÎî", "SsTtSsTtAaAaIi")


def _bleu_counts(bleu: BLEU, text: str, references: Sequence[str]) -> tuple[float, ...]:
    score = bleu.sentence_score(text, references)
    return *score.counts, *score.totals, score.sys_len, score.ref_len


def _bleu(counts: Numbers, smooth: str) -> float:
    *grams, said, wanted = counts.tolist()
    return float(BLEU.compute_bleu(grams[:4], grams[4:], said, wanted, smooth_method=smooth).score)


@lru_cache(maxsize=8)
def _moses_tools(language: str) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Normalising and tokenising; imported here, because it takes a second and few tasks are translations."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalizer = MosesPunctNormalizer(
        language, pre_replace_unicode_punct=True, post_remove_control_chars=True, perl_parity=True
    )
    return normalizer.normalize, partial(MosesTokenizer(language).tokenize, escape=False, return_str=True)


@lru_cache(maxsize=1 << 12)
def _rouges(text: str, reference: str) -> tuple[float, float, float]:
    ones, twos = (rouge.rouge_n(text, reference, n, stem=True) for n in (1, 2))
    return ones.f1, twos.f1, rouge.rouge_l_sum(text, reference, stem=True).f1


def _rouge_f1(answer: Answer, which: int) -> float:
    return max(_rouges(_text(answer), reference)[which] for reference in _right(answer))
