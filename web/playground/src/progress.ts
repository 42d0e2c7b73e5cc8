/** One calm line above the controls: what the connection is doing, where that is worth a word. */

import { byId } from "./dom.ts";

/** As long as it takes to read it twice. */
const PASSING_MS = 8_000;

export class Progress {
  readonly #line = byId("progress", HTMLElement);
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Stays until it is hidden, or another comes. */
  show(text: string): void {
    clearTimeout(this.#timer);
    this.#line.textContent = text;
    this.#line.hidden = false;
  }

  /** Goes by itself. */
  tell(text: string): void {
    this.show(text);
    this.#timer = setTimeout(() => this.hide(), PASSING_MS);
  }

  hide(): void {
    clearTimeout(this.#timer);
    this.#line.hidden = true;
  }
}
