/** A menu at a button: arrows move, Escape and a click elsewhere close, focus comes back. */

import { type ReactNode, useEffect, useId, useLayoutEffect, useRef, useState } from "react";
import { createPortal } from "react-dom";

export interface Choice {
  label: string;
  icon: ReactNode;
  isDangerous?: boolean;
  act: () => void;
}

export function Menu({ label, icon, choices }: { label: string; icon: ReactNode; choices: Choice[] }) {
  const [isOpen, setOpen] = useState(false);
  const button = useRef<HTMLButtonElement>(null);
  const menu = useRef<HTMLDivElement>(null);
  const id = useId();

  useLayoutEffect(() => {
    if (!isOpen || !menu.current || !button.current) return;
    const at = button.current.getBoundingClientRect();
    const { offsetHeight, offsetWidth, style } = menu.current;
    style.top = `${Math.min(at.bottom + 4, innerHeight - offsetHeight - 8)}px`;
    style.left = `${Math.max(8, Math.min(at.left, innerWidth - offsetWidth - 8))}px`;
    items()[0]?.focus();
  }, [isOpen]);

  useEffect(() => {
    if (!isOpen) return;
    const away = (event: Event) => {
      const target = event.target as Node;
      if (!menu.current?.contains(target) && !button.current?.contains(target)) setOpen(false);
    };
    addEventListener("pointerdown", away);
    addEventListener("scroll", away, true);
    return () => {
      removeEventListener("pointerdown", away);
      removeEventListener("scroll", away, true);
    };
  }, [isOpen]);

  function items(): HTMLElement[] {
    return [...(menu.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
  }

  function close(): void {
    setOpen(false);
    button.current?.focus();
  }

  function onKeyDown(event: React.KeyboardEvent): void {
    const all = items();
    const place = all.indexOf(document.activeElement as HTMLElement);
    const next = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: all.length - 1 }[event.key];
    if (next !== undefined) all.at(next % all.length)?.focus();
    else if (event.key === "Escape" || event.key === "Tab") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  return (
    <>
      <button
        ref={button}
        type="button"
        className="quiet menu-button"
        aria-label={label}
        aria-haspopup="menu"
        aria-expanded={isOpen}
        aria-controls={isOpen ? id : undefined}
        onClick={() => setOpen(!isOpen)}
      >
        {icon}
      </button>
      {isOpen && createPortal(
        <div ref={menu} id={id} className="menu" role="menu" aria-label={label} onKeyDown={onKeyDown}>
          {choices.map((choice) => (
            <button
              key={choice.label}
              type="button"
              role="menuitem"
              tabIndex={-1}
              className={choice.isDangerous ? "dangerous" : undefined}
              onClick={() => {
                close();
                choice.act();
              }}
            >
              {choice.icon}
              {choice.label}
            </button>
          ))}
        </div>,
        document.body, // no list may clip it
      )}
    </>
  );
}
