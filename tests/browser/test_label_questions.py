"""Each kind of question on the work page, answered by keys: what arrives in the store is what was meant."""

from __future__ import annotations

from label_desk import SAID, clean, item, rows_of

pytest_plugins = ["label_fixtures"]


def test_rate_flag_and_rank_in_one_item(come, desk, who):
    page = come("/label/desk/instructgpt")
    item(page)
    page.keyboard.press("6")  # A, then its flags
    letter = page.locator(".candidate").first.locator(".flag", has_text="Hallucination").locator("kbd").inner_text()
    page.keyboard.press(letter.lower())
    page.keyboard.press("Enter")
    for digit in "264":  # B, C, D: rated, and no flag
        page.keyboard.press(digit)
        page.keyboard.press("Enter")
    page.locator(".duel").wait_for()  # A and C have the same rating: the only question that is left
    assert {one.inner_text() for one in page.locator(".duel .side strong").all()} == {"A", "C"}
    page.keyboard.press("=")
    page.locator(".duel").wait_for(state="hidden")
    assert [one.inner_text() for one in page.locator(".entry strong").all()] == ["A", "C", "D", "B"]
    page.locator(".entry").last.focus()
    page.keyboard.press("ArrowUp")
    assert "rank B above D, but rated it lower (2 and 4)" in page.locator(".ranking .gentle").inner_text()
    page.keyboard.press("Enter")
    rows = {row["question"]: row for row in rows_of(desk, who, "instructgpt", 3)}
    order = rows["ranking"]["shown"]["order"]
    assert [rows["overall"]["value"]["ratings"][k] for k in order] == [6, 2, 6, 4]
    assert [rows["metadata"]["value"]["flags"][k] for k in order] == [["hallucination"], [], [], []]
    assert [rows["ranking"]["value"]["ranks"][k] for k in order] == [1, 2, 1, 3]
    clean(page, desk)


def test_the_best_of_four_by_its_number(come, desk, who):
    page = come("/label/desk/best")
    item(page)
    page.keyboard.press("Enter")
    assert page.evaluate(SAID) == "Not yet: choose the best one."
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    (row,) = rows_of(desk, who, "best", 1)
    assert row["shown"]["order"][2] == row["value"]["best"]


def test_writing_is_kept_as_a_draft_until_it_is_sent(come, desk, who):
    page = come("/label/desk/write")
    page.locator(".writing").wait_for()
    page.keyboard.type("Draws s, skips z and asks q.")  # single keys do nothing in a field
    assert "7 words" in page.locator(".count").inner_text()
    page.wait_for_function("() => Object.keys(localStorage).some((name) => name.startsWith('rein-label-draft-'))")
    page.reload()
    page.locator(".writing").wait_for()
    assert page.locator(".writing").input_value() == "Draws s, skips z and asks q."
    page.keyboard.press("Enter")  # a line
    page.keyboard.press("Control+Enter")
    (row,) = rows_of(desk, who, "write", 1)
    assert row["value"]["text"].startswith("Draws s, skips z and asks q.")
    page.wait_for_function("() => !Object.keys(localStorage).some((name) => name.startsWith('rein-label-draft-'))")


def test_an_edit_shows_what_it_changes(come, desk, who):
    page = come("/label/desk/edit")
    text = item(page)
    assert page.locator(".writing").input_value() == text
    page.keyboard.press("Control+Enter")
    assert page.evaluate(SAID) == "Not yet: nothing is changed yet."
    page.keyboard.press("Control+End")
    page.keyboard.type(" Briefly.")
    assert page.locator(".marks ins").all_inner_texts() == ["Briefly."]
    page.keyboard.press("Control+Enter")
    (row,) = rows_of(desk, who, "edit", 1)
    assert row["value"] == {"candidate": 0, "text": f"{text} Briefly."}


def test_insertion_finds_every_order_with_few_questions(look, desk):
    page = look(f"{desk.url}/label/login")
    asked = page.evaluate(
        """async () => {
          const { insertion } = await import('/static/label/insertion.js');
          const orders = (k) => (k === 0 ? [[]] : orders(k - 1).flatMap((one) => {
            const most = Math.max(0, ...one), made = [];
            for (let i = 1; i <= most; i++) made.push([...one, i]);
            for (let i = 0; i <= most; i++) made.push([...one.map((r) => (r > i ? r + 1 : r)), i + 1]);
            return made;
          }));
          const most = {};
          for (let k = 1; k <= 5; k++) for (const wanted of orders(k)) {
            const found = insertion(k, true);
            let n = 0;
            for (let pair = found.asked(); pair; pair = found.asked(), n++) {
              const [a, b] = pair.map((x) => wanted[x]);
              if (pair[0] > pair[1]) return ['not as the cards stand', pair];
              found.answer(a < b ? 'first' : a > b ? 'second' : 'equal');
            }
            if (String(found.ranks()) !== String(wanted)) return [k, wanted, found.ranks()];
            most[k] = Math.max(most[k] ?? 0, n);
            while (found.back()) n--;
            if (n !== 0 || (k > 1 && found.ranks() !== null)) return ['back', wanted];
          }
          return most;
        }"""
    )
    assert asked == {"1": 0, "2": 1, "3": 3, "4": 5, "5": 8}  # Σ ⌈log₂ n⌉


def test_differences_are_marked_on_request_and_the_answer_says_so(come, desk, who):
    page = come("/label/desk/plain")
    before = item(page)
    assert page.locator("mark").count() == 0
    page.keyboard.press("d")
    assert page.locator("mark.only").count() > 0
    assert item(page) == before
    page.keyboard.press("d")
    assert page.locator("mark").count() == 0
    for key in ("3", "Enter"):
        page.keyboard.press(key)
    before = item(page, other_than=before)
    for key in ("3", "Enter"):
        page.keyboard.press(key)
    rows = rows_of(desk, who, "plain", 2)
    assert [row["shown"]["diff"] for row in rows] == [True, False]


def test_the_marks_of_a_change_are_what_changed(look, desk):
    page = look(f"{desk.url}/label/login")
    runs = page.evaluate(
        """async (pairs) => {
          const { changes, onlyOnes } = await import('/static/label/diff.js');
          const long = 'word '.repeat(2001);
          const marked = pairs.map(([a, b]) => changes(a, b));
          return [marked, onlyOnes(['A b c.', 'a x c.']), changes(long, 'a'), onlyOnes([long, 'a'])];
        }""",
        [["the mean of data", "the sample mean of all data"], ["a b c", "a c"], ["Same", "same"]],
    )
    told = [[(run["act"], run["text"].strip()) for run in one if run["text"].strip()] for one in runs[0]]
    assert told[0] == [("same", "the"), ("new", "sample"), ("same", "mean of"), ("new", "all"), ("same", "data")]
    assert told[1] == [("same", "a"), ("gone", "b"), ("same", "c")]
    assert told[2] == [("gone", "Same"), ("new", "same")]
    assert [[run["text"] for run in one if run["only"]] for one in runs[1]] == [["b"], ["x"]]
    assert runs[2:] == [None, None]  # too long to say
