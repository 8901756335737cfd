// A value that components look at and are drawn anew with.
import { useEffect, useState } from "preact/hooks";

export interface Store<T> {
  get(): T;
  set(next: T): void;
  update(change: (now: T) => T): void;
  /** In a component: the value, now and after each change. */
  use(): T;
}

export function store<T>(initial: T): Store<T> {
  let value = initial;
  const watchers = new Set<() => void>();
  const set = (next: T) => {
    if (Object.is(next, value)) return;
    value = next;
    for (const watch of [...watchers]) watch();
  };
  return {
    get: () => value,
    set,
    update: (change) => set(change(value)),
    use() {
      const [, draw] = useState(0);
      useEffect(() => {
        const seen = value;
        const watch = () => draw((n) => n + 1);
        watchers.add(watch);
        if (!Object.is(seen, value)) watch();
        return () => void watchers.delete(watch);
      }, []);
      return value;
    },
  };
}
