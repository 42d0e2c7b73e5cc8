/** The key that this server may want: asked for in a dialog, held in memory, kept longer only if the person says so. */

import { byId } from "./dom.ts";

/** Ends with the tab, and is no other page's. */
const STORED_AS = "voiceforge.key";

/** One key at a time. It never stands in an address. */
export class AccessKey {
  readonly #dialog = byId("key-dialog", HTMLDialogElement);
  readonly #form = byId("key-form", HTMLFormElement);
  readonly #why = byId("key-why", HTMLElement);
  readonly #field = byId("key-value", HTMLInputElement);
  readonly #keep = byId("key-keep", HTMLInputElement);
  readonly #onChange: (isThere: boolean) => void;
  #value: string;

  /** @param onChange called when there is another key, or none any more. */
  constructor(onChange: (isThere: boolean) => void) {
    this.#onChange = onChange;
    this.#value = sessionStorage.getItem(STORED_AS) ?? "";
    this.#keep.checked = this.#value !== "";
    byId("key-cancel", HTMLButtonElement).addEventListener("click", () => this.#dialog.close());
    this.#form.addEventListener("submit", () => this.#take(this.#field.value.trim()));
    onChange(this.#value !== "");
  }

  /** Empty where none was given. */
  get value(): string {
    return this.#value;
  }

  /**
   * Asks for a key.
   *
   * @param why what the server said; absent where the person asked.
   * @returns whether one was given.
   */
  async ask(why = ""): Promise<boolean> {
    this.#why.textContent = why;
    this.#why.hidden = why === "";
    this.#field.value = "";
    this.#dialog.returnValue = "";
    this.#dialog.showModal();
    this.#field.focus();
    await new Promise((resolve) => this.#dialog.addEventListener("close", resolve, { once: true }));
    this.#field.value = ""; // it is not to lie about in the page
    return this.#dialog.returnValue === "given";
  }

  forget(): void {
    this.#keep.checked = false;
    this.#take("");
  }

  #take(value: string): void {
    this.#value = value;
    if (this.#keep.checked && value !== "") sessionStorage.setItem(STORED_AS, value);
    else sessionStorage.removeItem(STORED_AS);
    this.#onChange(value !== "");
  }
}
