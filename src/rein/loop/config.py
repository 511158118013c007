"""The settings of `rein loop`, and which policies answer together in a round.

what is given here > a file of `--reward-settings` or `--policy-settings` > the preset's
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rein.config import flag_of, setting
from rein.errors import UserError, suggestion
from rein.feedback.draw import REFERENCE, twin
from rein.feedback.labelers import Habits
from rein.text.prompts import FORMATS
from rein.train.rlhf_presets import PPO

INITIAL, CURRENT, BEST = "initial", "current", "best"  # what a mixture may name, besides references
Groups = dict[tuple[str, ...], float]


@dataclass(frozen=True)
class LoopConfig:
    """Settings of `rein loop`."""

    policy: Path = setting(
        help="the supervised model: a run of `rein sft`, a checkpoint, or a model folder", positional=True
    )
    prompts: Path = setting(
        help='JSON lines: {"prompt": …} or a format\'s fields; "reference", "split"; rows not in split train are held '
        "out"
    )
    out: Path = setting(Path("runs/loop"), "folder of the loop; the same command goes on")
    rounds: int = setting(3, "of collecting, a reward model, a policy; more may be asked for later", may_change=True)
    improve: Literal["ppo", "grpo", "rloo", "dr_grpo", "dpo", "rejection"] = setting(
        "ppo", "what makes a policy of a reward model: PPO, or an estimator of `rein grpo`; or DPO, of the judgements "
        "alone; or supervised learning of the best of N samples",
    )  # fmt: skip
    preset: str = setting("stiennon2020", f"of the reward model and of PPO: {', '.join(PPO)}")
    reward_settings: Path | None = setting(None, "JSON of further settings of `rein reward`")
    policy_settings: Path | None = setting(None, "JSON of further settings of `rein ppo`, grpo, dpo or sft")
    format: str = setting("plain", f"how a row becomes a query: {', '.join(FORMATS)}")
    query_tokens: int | None = setting(None, "longest query, instead of the format's", unit="tokens")
    response_tokens: int | None = setting(None, "longest response, instead of the format's", unit="tokens")
    seed: int = setting(0, "of everything: which prompts, samples, sides, labelers, heads")

    items: int = setting(200, "items of a round that are to be answered", unit="items", group="collecting")
    overlap: int = setting(1, "people who answer each", unit="people", paper="1", group="collecting")
    pairs: str = setting(
        "current:initial=0.3,current:ref=0.2,current:current=0.2,best:current=0.2,initial:ref=0.1",
        "GROUP=SHARE,…: current is the last round's policy (the supervised one at first), best its best of N by the "
        "last reward model, ref the references",
        paper="all of these sources in Stiennon 2020", group="collecting",
    )  # fmt: skip
    best_of: int = setting(8, "N of best", unit="samples", paper="8 to 512", group="collecting")
    temperature: float = setting(0.7, "of samples, for people and in evaluations", paper="0.7", group="collecting")
    pool: float = setting(
        2.0, "from the second round on, so many times more items are drawn: those that the last reward models differ "
        "on most are answered, beside a share in a random order; 1: all alike", group="collecting",
    )  # fmt: skip
    uniform_share: float = setting(0.2, "of the work in a random order whatever its doubt", group="collecting")
    calibration_share: float = setting(
        0.15, "of a person's items: the ones that everybody answers", paper="0.1 to 0.2", group="collecting"
    )
    drift_share: float = setting(
        0.05, "of a person's items: supervised model against reference, followed over the rounds",
        paper="in each batch of Stiennon 2020", group="collecting",
    )  # fmt: skip
    heldout_frac: float = setting(
        0.2, "of the prompts that were answered: half to select reward models by, half to report them on",
        group="collecting",
    )  # fmt: skip
    staged: bool = setting(
        False, "people say what each answer seems to say before they see the source", paper="yes", group="collecting"
    )
    evaluation_items: int = setting(
        60, "held-out items by which a round's policy is compared with the supervised one and with references; "
        "nothing is learned from them", unit="items", group="collecting",
    )  # fmt: skip

    labelers: Literal["simulated", "people"] = setting(
        "simulated", "who answers: simulated labelers with a gold score, or people at the pages", group="labelers"
    )
    by_people: int = setting(
        0, "answers of each round that are left for people where labelers are simulated", unit="answers",
        group="labelers",
    )  # fmt: skip
    wait: bool = setting(
        True, "wait until people have answered; without: say how many answers are missing, and end", may_change=True,
        group="labelers",
    )  # fmt: skip
    store: str = setting("", "the feedback store; without it, labels.db in --out", group="labelers")
    gold: str = setting(
        "rein.text.gold:gold", "what simulated labelers judge by: package.module:Name, called with (context, text)",
        group="labelers",
    )  # fmt: skip
    simulated: int = setting(5, "simulated labelers", unit="people", group="labelers")
    judgement_temperature: float | None = setting(
        None, "P(i over j) = sigmoid(difference of gold / temperature); a third of a usual difference if not given",
        group="labelers",
    )  # fmt: skip
    noise: float = setting(0.05, "share of judgements turned around", group="labelers")
    side: float = setting(0.2, "pull of what is shown first", unit="logits", group="labelers")
    length: float = setting(0.0, "pull of length, per ln of the ratio", unit="logits", group="labelers")
    tie_below: float = setting(0.0, "a difference below it is a tie", unit="logits", group="labelers")

    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")

    def __post_init__(self) -> None:
        for name in ("rounds", "items", "overlap", "best_of", "simulated"):
            if getattr(self, name) < 1:
                raise UserError(f"{flag_of(name)} is {getattr(self, name)}, but it must be at least 1.",
                                f"Raise {flag_of(name)}.")  # fmt: skip
        for name in ("by_people", "temperature"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{flag_of(name)} is {getattr(self, name)}, but it must be 0 or more.",
                                f"Raise {flag_of(name)}.")  # fmt: skip
        if self.evaluation_items < 4:
            raise UserError(
                f"--evaluation-items is {self.evaluation_items}, but 4 at least are needed: two against the supervised "
                "model, two against references.", "Raise --evaluation-items.",
            )  # fmt: skip
        if not 1 <= self.pool < float("inf"):
            raise UserError(f"--pool is {self.pool}, but it must be at least 1.", "Use 1 for no selection.")
        for name in ("uniform_share", "calibration_share", "drift_share", "heldout_frac"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{flag_of(name)} is {getattr(self, name)}, but it must be in [0, 1).",
                                f"Change {flag_of(name)}.")  # fmt: skip
        if self.by_people > self.items * self.overlap:
            raise UserError(
                f"--by-people is {self.by_people}, but a round has --items {self.items} times --overlap {self.overlap} "
                f"= {self.items * self.overlap} answers.",
                "Lower --by-people, or use --labelers people.",
            )
        if self.labelers == "simulated" and self.overlap > self.simulated:
            raise UserError(
                f"--overlap is {self.overlap}, but there are {self.simulated} simulated labelers, and each answers an "
                "item once.",
                "Raise --simulated, or lower --overlap.",
            )
        for flag, value, known in (("--preset", self.preset, PPO), ("--format", self.format, FORMATS)):
            if value not in known:
                raise UserError(f"{flag} is {value!r}.", suggestion(value, known))
        self.habits(1.0)
        groups_of(self.pairs)

    def habits(self, temperature: float) -> Habits:
        """What the simulated labelers have in common; `temperature` where none is given."""
        given = self.judgement_temperature
        return Habits(
            temperature=temperature if given is None else given, noise=self.noise, side=self.side, length=self.length,
            tie_below=self.tie_below,
        )  # fmt: skip

    @property
    def address(self) -> str:
        """Of the feedback store."""
        return self.store or str(self.out / "labels.db")

    @property
    def crew(self) -> list[str]:
        """The names of the simulated labelers; whoever else answers is a person."""
        return [f"simulated-{n}" for n in range(1, self.simulated + 1)] if self.labelers == "simulated" else []

    @property
    def answers(self) -> int:
        """Of a round's work."""
        return self.items * self.overlap


def groups_of(pairs: str) -> Groups:
    """A mixture by its groups.

    Example  >>> groups_of("current:ref=0.3, current:initial=0.1")
             {('current', 'ref'): 0.3, ('current', 'initial'): 0.1}
    Raises   UserError for what is none.
    """
    known = (INITIAL, CURRENT, BEST, REFERENCE)
    found: Groups = {}
    for part in pairs.split(","):
        group, _, share = part.strip().partition("=")
        members = tuple(group.split(":"))
        for name in members:
            if name not in known:
                raise UserError(f"--pairs names {name!r}.", suggestion(name, known))
        if len(members) != 2 or members in found or members.count(REFERENCE) > 1:
            raise UserError(f"--pairs has {group!r}.", "Name two, each pair once: current:initial=0.5,current:ref=0.5.")
        try:
            found[members] = float(share or 1)
        except ValueError:
            found[members] = -1.0
        if not 0 < found[members] < float("inf"):
            raise UserError(f"--pairs gives {group!r} the share {share!r}.", "Write a number above 0.")
    return found


def policy_name(round: int) -> str:
    """What the policy of a round is called in items; that of round 0 is the supervised model.

    Example  >>> policy_name(0), policy_name(3)
             ('initial', 'round-03')
    """
    return f"round-{round:02d}" if round else INITIAL


def pairs_of_round(groups: Groups, round: int, best_of: int) -> str:
    """The mixture of a round, as `rein label draw` reads it: by the policies' own names.

    In the first round the supervised model is the current one, and there is no reward model that could say what is
    best: groups with it are left out.

    Example  >>> mixture = groups_of("current:ref=0.3,initial:ref=0.1,best:current=0.2")
             >>> pairs_of_round(mixture, 1, 8)
             'initial:ref=0.4'
             >>> pairs_of_round(mixture, 2, 8)
             'round-01:ref=0.3,initial:ref=0.1,round-01-bo8:round-01=0.2'
    Raises   UserError where the first round has none.
    """
    current = policy_name(round - 1)
    own = {INITIAL: INITIAL, CURRENT: current, BEST: twin(current, best_of), REFERENCE: REFERENCE}
    shares: dict[tuple[str, ...], float] = {}
    for members, share in groups.items():
        if BEST in members and (round == 1 or best_of == 1):
            continue
        named = tuple(own[name] for name in members)
        named = named[::-1] if named[::-1] in shares else named
        shares[named] = shares.get(named, 0.0) + share
    if not shares:
        raise UserError(
            "--pairs has no group for the first round: there is no reward model yet that could say what is best.",
            "Add one without best, such as current:ref=0.3.",
        )
    return ",".join(f"{':'.join(members)}={round_share:.6g}" for members, round_share in shares.items())
