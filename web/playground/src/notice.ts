/** One line above the controls that says what went wrong and what to do about it. */

import { byId } from "./dom.ts";

export type Kind = "error" | "warning";

export interface Told {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  readonly retryAfterS?: number | null;
}

/** Shows one notice at a time, the newest; an error is not replaced by a warning. */
export class Notice {
  readonly #box = byId("notice", HTMLElement);
  readonly #message = byId("notice-message", HTMLElement);
  readonly #hint = byId("notice-hint", HTMLElement);
  readonly #wait = byId("notice-wait", HTMLElement);
  readonly #code = byId("notice-code", HTMLElement);
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor() {
    byId("notice-dismiss", HTMLButtonElement).addEventListener("click", () => this.hide());
  }

  /** The code of what is shown; null where nothing is. */
  get code(): string | null {
    return this.#box.hidden ? null : (this.#box.dataset["code"] ?? null);
  }

  show(told: Told, kind: Kind): void {
    if (kind === "warning" && !this.#box.hidden && this.#box.dataset["kind"] === "error") return;
    this.#box.dataset["kind"] = kind;
    this.#box.dataset["code"] = told.code;
    this.#message.textContent = told.message;
    this.#hint.textContent = told.hint;
    this.#code.textContent = told.code;
    this.#countDown(told.retryAfterS ?? 0);
    this.#box.hidden = false;
  }

  hide(): void {
    clearInterval(this.#timer);
    this.#box.hidden = true;
  }

  /** Says for how long the server wants to be left alone. */
  #countDown(fromS: number): void {
    clearInterval(this.#timer);
    this.#wait.hidden = fromS <= 0;
    if (fromS <= 0) return;
    const untilMs = performance.now() + fromS * 1000;
    const show = (): void => {
      const leftS = Math.ceil((untilMs - performance.now()) / 1000);
      this.#wait.textContent = leftS > 0 ? `It takes you again in ${durationOf(leftS)}.` : "You can try again now.";
      if (leftS <= 0) clearInterval(this.#timer);
    };
    show();
    this.#timer = setInterval(show, 1000);
  }
}

function durationOf(seconds: number): string {
  return seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3600)} h`;
}
