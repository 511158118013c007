/* A labeler's question with its reply, which can be written, changed and pinned. */

import { askedWords, element, said, when } from "./text.js";
import { field, formEnd, input, link, onSubmit, pageOf, post, textarea, tick } from "./research-page.js";

/* `changed` is called when a reply was sent. */
export const threadNode = (one, changed, { withItem = false } = {}) => {
  const item = element("li", one.reply === null ? "note thread" : "panel thread");
  const head = element("p", "quiet");
  head.append(said(one.person, "span"), ", ", when(one.at_ms));
  if (withItem) head.append(", about ", link(`item ${one.item}`, pageOf(`/items/${one.item}`)));
  if (one.pinned) head.append(" · ", element("span", "tag on", "pinned"));
  item.append(head, said(askedWords(one.text)));
  if (one.reply !== null) {
    const by = element("p", "quiet");
    by.append(said(one.replied_by ?? "", "span"), " replied, ", when(one.replied_ms));
    item.append(by, said(one.reply));
  }
  const form = element("form", "form");
  const text = textarea(one.reply ?? "", { maxlength: 20_000, rows: 3 });
  const pinned = input("checkbox", one.pinned);
  form.append(field(one.reply === null ? "Your reply" : "The reply", text), tick("Pin it below the instructions, for everybody", pinned), ...formEnd(one.reply === null ? "Reply" : "Keep the change"));
  onSubmit(form, async () => {
    const reply = text.value.trim();
    await post(`/research/threads/${one.id}`, { ...(reply && reply !== one.reply ? { reply } : {}), pinned: pinned.checked });
    await changed();
    return "Sent.";
  });
  if (one.reply === null) item.append(form);
  else {
    const box = element("details");
    box.append(element("summary", "quiet", "Change the reply, or pin it"), form);
    item.append(box);
  }
  return item;
};
