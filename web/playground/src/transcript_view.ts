/** Shows a transcript: each utterance in place from its first word to its last correction, with a bounded DOM. */

import { alignWords, type Segment, type Transcript, type Utterance, type Word } from "@voiceforge/client";

import { clockText } from "./format.ts";

/** Rows in the document. Beyond some thousands of words layout begins to cost; this is half an hour of speech. */
const SHOWN_ROWS = 200;
/** What one press on "earlier" or "later" moves by: half stays, for orientation. */
const PAGE_ROWS = SHOWN_ROWS / 2;
/** As near to the end as this still counts as reading along. */
const NEAR_END_PX = 96;

/** Confidence from which a word takes the class `c<index>`; below the last it is `c3`. */
const CONFIDENCE_STEPS = [0.9, 0.75, 0.5];
/** Words that the server marks `low_confidence` take this class besides: a line, for those who do not see the colour. */
const LOW_CLASS = "low";

interface Elements {
  readonly scroller: HTMLElement;
  readonly list: HTMLElement;
  readonly earlier: HTMLButtonElement;
  readonly later: HTMLButtonElement;
  readonly latest: HTMLButtonElement;
}

/** Keeps the rows of the newest utterances, or of a page further up while somebody reads there. */
export class TranscriptView {
  readonly #transcript: Transcript;
  readonly #elements: Elements;
  readonly #rows = new Map<string, Row>();
  /** Index after the last utterance shown; null while the newest are followed. */
  #pageEnd: number | null = null;
  #readingAlong = true;

  constructor(transcript: Transcript, elements: Elements) {
    this.#transcript = transcript;
    this.#elements = elements;
    elements.earlier.addEventListener("click", () => this.#turn(-PAGE_ROWS));
    elements.later.addEventListener("click", () => this.#turn(PAGE_ROWS));
    elements.latest.addEventListener("click", () => this.followNewest());
    elements.scroller.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    new ResizeObserver(() => this.#keepAtEnd()).observe(elements.scroller);
  }

  /** Shows what an event has changed. */
  update(utterance: Utterance): void {
    const row = this.#rows.get(utterance.key);
    if (row !== undefined && utterance.text !== "") row.show(utterance);
    else if (row !== undefined || (this.#pageEnd === null && utterance.text !== "")) this.#showNew(utterance);
    this.#showControls();
    this.#keepAtEnd();
  }

  /** Builds the rows anew from the transcript, for example once it was cleared. */
  rebuild(): void {
    for (const row of this.#rows.values()) row.element.remove();
    this.#rows.clear();
    const shown = this.#page();
    shown.forEach((utterance, index) => this.#append(utterance, shown[index - 1]));
    this.#showControls();
    this.#keepAtEnd();
  }

  /** Goes to the end and stays there. */
  followNewest(): void {
    this.#readingAlong = true;
    const turned = this.#pageEnd !== null;
    this.#pageEnd = null;
    if (turned) this.rebuild();
    this.#showControls();
    this.#keepAtEnd();
  }

  #spoken(): Utterance[] {
    return this.#transcript.utterances.filter((utterance) => utterance.text !== "");
  }

  #page(): Utterance[] {
    const spoken = this.#spoken();
    const end = this.#pageEnd ?? spoken.length;
    return spoken.slice(Math.max(0, end - SHOWN_ROWS), end);
  }

  #showNew(utterance: Utterance): void {
    const spoken = this.#spoken();
    if (spoken.at(-1)?.key !== utterance.key) return this.rebuild(); // a late one, or one that lost its text
    this.#append(utterance, spoken.at(-2));
    if (this.#rows.size <= SHOWN_ROWS) return;
    const oldest = this.#rows.entries().next().value;
    if (oldest === undefined) return;
    const [key, row] = oldest;
    const heightBefore = this.#elements.scroller.scrollHeight;
    row.element.remove();
    this.#rows.delete(key);
    // What somebody is reading further up stays where it is.
    if (!this.#readingAlong) this.#elements.scroller.scrollTop -= heightBefore - this.#elements.scroller.scrollHeight;
  }

  #append(utterance: Utterance, before: Utterance | undefined): void {
    const row = new Row();
    row.element.classList.toggle("new-session", before !== undefined && before.session !== utterance.session);
    row.show(utterance);
    this.#rows.set(utterance.key, row);
    this.#elements.list.append(row.element);
  }

  #turn(rows: number): void {
    const spoken = this.#spoken();
    const end = Math.max(SHOWN_ROWS, (this.#pageEnd ?? spoken.length) + rows);
    this.#readingAlong = false;
    this.#pageEnd = end >= spoken.length ? null : end;
    const keysBefore = new Map([...this.#rows].map(([key, row]) => [key, row.element.offsetTop]));
    const scrollBefore = this.#elements.scroller.scrollTop;
    this.rebuild();
    for (const [key, row] of this.#rows) {
      const topBefore = keysBefore.get(key);
      if (topBefore === undefined) continue;
      this.#elements.scroller.scrollTop = scrollBefore + row.element.offsetTop - topBefore;
      break;
    }
  }

  #onScroll(): void {
    const { scrollHeight, scrollTop, clientHeight } = this.#elements.scroller;
    this.#readingAlong = this.#pageEnd === null && scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    this.#showControls();
  }

  #keepAtEnd(): void {
    if (this.#readingAlong) this.#elements.scroller.scrollTop = this.#elements.scroller.scrollHeight;
  }

  #showControls(): void {
    const { earlier, later, latest } = this.#elements;
    const count = this.#spoken().length;
    const end = this.#pageEnd ?? count;
    const before = Math.max(0, end - SHOWN_ROWS);
    earlier.hidden = before === 0;
    earlier.textContent = `Show earlier: ${before} more, all of them are kept`;
    later.hidden = end >= count;
    later.textContent = `Show later: ${count - end} more`;
    latest.hidden = this.#readingAlong || count === 0;
  }
}

/** One utterance. */
class Row {
  readonly element = document.createElement("li");
  readonly #time = document.createElement("time");
  readonly #stable = new Run("stable");
  readonly #unstable = new Run("unstable");
  readonly #text = document.createElement("p");

  constructor() {
    this.element.className = "utterance";
    this.#text.dir = "auto";
    this.#text.append(this.#stable.element, this.#unstable.element);
    this.element.append(this.#time, this.#text);
  }

  show(utterance: Utterance): void {
    const { element } = this;
    element.dataset["testid"] = utterance.isFinal ? "final" : "interim";
    element.dataset["revised"] = String(utterance.superseded.length);
    const time = clockText(utterance.start);
    if (this.#time.textContent !== time) this.#time.textContent = time;
    if (utterance.language !== null) this.#text.lang = utterance.language;
    this.#text.title = utterance.superseded.map((old) => `Before: ${old.text}`).join("\n");
    const segments = alignWords(utterance.text, utterance.words, utterance.stable.length);
    const boundary = segments.findIndex((segment) => !segment.stable);
    this.#stable.show(boundary < 0 ? segments : segments.slice(0, boundary));
    this.#unstable.show(boundary < 0 ? [] : segments.slice(boundary));
  }
}

/** A run of words. Touches only the nodes that differ, so that a selection or a tooltip survives the next interim. */
class Run {
  readonly element = document.createElement("span");

  constructor(name: "stable" | "unstable") {
    this.element.className = name;
    this.element.dataset["testid"] = name;
  }

  show(segments: readonly Segment[]): void {
    const { element } = this;
    segments.forEach(({ text, word, stable }, index) => {
      const node = element.childNodes[index];
      if (word === null) {
        if (!(node instanceof Text)) replaceAt(element, node, new Text(text));
        else if (node.data !== text) node.data = text;
        return;
      }
      const span = node instanceof HTMLSpanElement ? node : replaceAt(element, node, document.createElement("span"));
      if (span.textContent !== text) span.textContent = text;
      // Doubt about what may still change anyway would only be noise.
      const isLow = stable && word.low_confidence === true;
      const className = !stable ? "" : confidenceClass(word.confidence) + (isLow ? ` ${LOW_CLASS}` : "");
      if (span.className !== className) span.className = className;
      // For those who do not see the line either; no text of its own, so that what is copied is what was said.
      const description = isLow ? "uncertain" : null;
      if (span.ariaDescription !== description) span.ariaDescription = description;
      const title = tooltip(word);
      if (span.title !== title) span.title = title;
    });
    while (element.childNodes.length > segments.length) element.lastChild?.remove();
  }
}

function replaceAt<Made extends Node>(parent: Node, old: ChildNode | undefined, made: Made): Made {
  if (old === undefined) parent.appendChild(made);
  else old.replaceWith(made);
  return made;
}

function confidenceClass(confidence: number): string {
  const step = CONFIDENCE_STEPS.findIndex((from) => confidence >= from);
  return `c${step < 0 ? CONFIDENCE_STEPS.length : step}`;
}

function tooltip(word: Word): string {
  return `${Math.round(word.confidence * 100)} % sure, ${clockText(word.start)} – ${clockText(word.end)}`;
}
