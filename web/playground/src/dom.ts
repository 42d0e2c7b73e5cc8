/** The page's elements, found once and with their types. */

/**
 * The element with this id.
 *
 * @throws Error where index.html and this code disagree, so that it shows at once and not at the first click.
 */
export function byId<Type extends HTMLElement>(id: string, type: new () => Type): Type {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`index.html has no ${type.name} #${id}`);
  return element;
}

/** The element that tests know by this name too. */
export function byTestId(name: string): HTMLElement {
  const element = document.querySelector(`[data-testid="${name}"]`);
  if (!(element instanceof HTMLElement)) throw new Error(`index.html has no data-testid="${name}"`);
  return element;
}
