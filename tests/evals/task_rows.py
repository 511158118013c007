"""Rows of the tasks that are answered by choice, as their files have them."""

# ARC
GEORGE = "George wants to warm his hands quickly by rubbing them. Which skin surface will produce the most heat?"
PALMS = ["dry palms", "wet palms", "palms covered with oil", "palms covered with lotion"]
ARC = {
    "id": "Mercury_1",
    "question": {"stem": GEORGE, "choices": [{"text": t, "label": x} for t, x in zip(PALMS, "ABCD", strict=True)]},
    "answerKey": "A",
}

# OpenBookQA
OBQA = {
    "id": "7-980",
    "question": {
        "stem": "Organisms require energy in order to do what?",
        "choices": [
            {"text": "mature and develop.", "label": "A"},
            {"text": "rest soundly.", "label": "B"},
            {"text": "absorb  light.", "label": "C"},
            {"text": "take in nutrients.", "label": "D"},
        ],
    },
    "answerKey": "A",
}

# HellaSwag
CAKE = {
    "ind": 4,
    "activity_label": "Making a cake",
    "ctx_a": "Several cake pops are shown on a display. A woman and girl are shown making the cake pops in a kitchen.",
    "ctx_b": "they",
    "split": "val",
    "split_type": "indomain",
    "source_id": "activitynet~v_1",
    "endings": [
        "bake them, then frost and decorate.",
        "taste them as they place them on plates.",
        "put the frosting on the cake as they pan it.",
        "come out and begin decorating the cake as well.",
    ],
    "label": 0,
}

# PIQA
SEALANT = {
    "goal": "How to apply sealant to wood.",
    "sol1": "Using a brush, brush on sealant onto wood until it is fully saturated with the sealant.",
    "sol2": "Using a brush, drip on sealant onto wood until it is fully saturated with the sealant.",
}

COPA = {
    "premise": "My body cast a shadow over the grass.",
    "choice1": "The sun was rising.",
    "choice2": "The grass was cut.",
    "question": "cause",
    "label": 0,
    "idx": 0,
}

# Winograd, as the Eval Gauntlet has it
SWEATER = "Grace was happy to trade me her sweater for my jacket. She thinks the {} looks dowdy on her."
GAUNTLET_WINOGRAD = {
    "context_options": [SWEATER.format(noun).removesuffix(" looks dowdy on her.") for noun in ("sweater", "jacket")],
    "continuation": "looks dowdy on her.",
    "gold": 0,
}

# RACE
SMITH = {
    "id": "middle1.txt",
    "article": "Mrs. Smith is an unusual teacher.\nOnce she told each student to bring along a few  potatoes.",
    "questions": ["The children complained about _ besides the weight trouble.", "Mrs. Smith asked to write _ ."],
    "options": [["the smell", "the colour", "the price", "the taste"], ["names", "numbers", "time", "places"]],
    "answers": ["A", "A"],
}

MULTIRC = {
    "idx": 3,
    "passage": {
        "text": "While this process moved along,  diplomacy continued its rounds.",
        "questions": [
            {
                "question": "Who did The State Department feel should visit both India and Pakistan?",
                "answers": [{"text": "Bin Laden", "label": 0, "idx": 0}, {"text": "Clinton", "label": 1, "idx": 1}],
                "idx": 0,
            },
            {"question": "What continued?", "answers": [{"text": "Diplomacy", "label": 1, "idx": 2}], "idx": 1},
        ],
    },
}

# ReCoRD
TEXT = (
    "(CNN) Yuval Rabin, whose father, Yitzhak Rabin, was killed, criticized Donald Trump. Trump denied it."
    '\n@highlight\nThe son wrote an op ed.\n@highlight\nWarns of "parallels" between Israel and the U.S. today.'
)
QUERY = "Referencing his father, Rabin condemned @placeholder's aggressive rhetoric."
NAMES = ["Yuval Rabin", "Yitzhak Rabin", "Donald Trump", "Trump", "U.S."]


def record(**change):
    entities = [{"start": TEXT.index(name), "end": TEXT.index(name) + len(name) - 1} for name in NAMES]
    entities.append({"start": TEXT.index("Trump denied"), "end": TEXT.index("Trump denied") + 4})
    answers = [{"start": 0, "end": 0, "text": "Donald Trump"}, {"start": 0, "end": 0, "text": "Trump"}]
    qas = [{"query": QUERY, "answers": answers, "idx": 0} | change]
    return {"source": "CNN", "passage": {"text": TEXT, "entities": entities}, "qas": qas, "idx": 5}


# WSC
MONCRIEFF = {
    "text": "Mr. Moncrieff has decided to cancel Edward's allowance on the ground that he no longer requires his help.",
    "target": {"span1_index": 0, "span1_text": "Mr. Moncrieff", "span2_index": 16, "span2_text": "his"},
    "label": True,
}

SAT = """# SAT analogy questions, collected by Michael Littman
190 FROM REAL SATs
lull trust v:n
balk fortitude v:n
betray loyalty v:n
cajole compliance v:n
hinder destination v:n
soothe passion v:n
c

"""
