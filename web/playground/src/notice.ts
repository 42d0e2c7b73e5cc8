/** One line above the controls that says what went wrong and what to do about it. */

import type { VoiceForgeError } from "@voiceforge/client";

import { byId } from "./dom.ts";

export type Kind = "error" | "warning";

/** Shows one notice at a time, the newest; an error is not replaced by a warning. */
export class Notice {
  readonly #box = byId("notice", HTMLElement);
  readonly #message = byId("notice-message", HTMLElement);
  readonly #hint = byId("notice-hint", HTMLElement);
  readonly #code = byId("notice-code", HTMLElement);

  constructor() {
    byId("notice-dismiss", HTMLButtonElement).addEventListener("click", () => this.hide());
  }

  /** The code of what is shown; null where nothing is. */
  get code(): string | null {
    return this.#box.hidden ? null : (this.#box.dataset["code"] ?? null);
  }

  show(error: Pick<VoiceForgeError, "code" | "message" | "hint">, kind: Kind): void {
    if (kind === "warning" && !this.#box.hidden && this.#box.dataset["kind"] === "error") return;
    this.#box.dataset["kind"] = kind;
    this.#box.dataset["code"] = error.code;
    this.#message.textContent = error.message;
    this.#hint.textContent = error.hint;
    this.#code.textContent = error.code;
    this.#box.hidden = false;
  }

  hide(): void {
    this.#box.hidden = true;
  }
}
