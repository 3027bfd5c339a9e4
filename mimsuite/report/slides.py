"""Pictures of a page one at a time, under a slider; without scripts, one below the other."""

from __future__ import annotations

from collections.abc import Sequence

from mimsuite.report.html import Markup, tag

SCRIPT = """
for (const box of document.querySelectorAll(".slides")) {
  const shown = [...box.children].reverse(), last = shown.length - 1;
  const label = document.createElement("label"), slider = document.createElement("input");
  const text = document.createElement("output");
  Object.assign(slider, {type: "range", min: 0, max: last, value: last});
  const show = () => {
    shown.forEach((figure, i) => { figure.hidden = i != slider.value; });
    text.textContent = shown[slider.value].querySelector("figcaption").textContent;
    slider.setAttribute("aria-valuetext", text.textContent);
  };
  slider.addEventListener("input", show);
  slider.setAttribute("aria-label", box.dataset.about);
  label.append(slider, text);
  box.before(label);
  box.classList.add("single");
  show();
}
"""


def slides(figures: Sequence[Markup], about: str) -> Markup:
    """Figures, the newest first; two or more get a slider from the oldest to the newest.

    Args:
        about: what the slider goes through, for those who cannot see it.
    """
    if len(figures) < 2:
        return Markup("".join(map(str, figures)))
    return tag("div", *figures, class_="slides", data_about=about)
