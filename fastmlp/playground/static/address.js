// Settings in the fragment of the address, those that are not the defaults.

export const text = (value) => (Array.isArray(value) ? value.join(",") : String(value));

export function fromAddress() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

export function toAddress(settings, fields) {
  const parts = Object.entries(settings).filter(([name, value]) => text(value) !== text(fields[name].default));
  const fragment = parts.map(([name, value]) => `${name}=${encodeURIComponent(text(value)).replaceAll("%2C", ",")}`);
  history.replaceState(null, "", fragment.length ? `#${fragment.join("&")}` : location.pathname);
}
