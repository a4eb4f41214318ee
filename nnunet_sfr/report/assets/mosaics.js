// The stitched mosaics, in the pool's order and with its filters.

const MOSAICS_ON_PAGE = 6;

function hasMosaics(source) {
  return CONTENTS.cases.some((item) => resultOf(item, source)?.mosaic);
}

// The chosen source's mosaics or, if it has none, those of the latest that has.
function mosaicSource() {
  if (hasMosaics(state.source)) return state.source;
  return CONTENTS.sources.map((source) => source.key).findLast(hasMosaics);
}

function buildMosaics(section) {
  const note = element("p", { class: "count", role: "status" });
  const mosaics = element("div", { class: "grid mosaics" });
  const turning = element("div", { class: "pages" });
  section.append(note, mosaics, turning);
  const show = (page) => {
    const source = mosaicSource();
    const found = chosenCases().filter((item) => resultOf(item, source)?.mosaic);
    note.textContent = `${counted(found.length, "mosaic")} of the cases chosen above, labels by ${SOURCES.get(source).name}`;
    mosaics.replaceChildren(...onPage(found, page, MOSAICS_ON_PAGE).map((item) => mosaicCard(item, source)));
    turning.replaceChildren(...turner(found.length, page, MOSAICS_ON_PAGE, (next) => { show(next); note.scrollIntoView(); }));
    turning.hidden = found.length <= MOSAICS_ON_PAGE;
  };
  listeners.push((changed) => { if (changed.some((name) => name !== "page" && name !== "size")) show(1); });
  show(1);
}

function mosaicCard(item, source) {
  const view = resultOf(item, source);
  return element("figure", { class: "card" }, thumbnail(item, "mosaic", [view.mosaic.image, view.mosaic.labels]),
    element("figcaption", {}, element("strong", {}, item.name), element("span", {}, `confidence ${asConfidence(view.confidence)}`)));
}
