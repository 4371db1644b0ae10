// Small readings of header and query text; `evaluate/text.rs` of the runtime is the reference.

export const escaped = (value: string) => value.replaceAll("%", "%25").replaceAll(" ", "%20");

const nameOf = (part: string) => part.split("=", 1)[0]!;

/** The parameters of a query without those named, sorted; empty ones are dropped. */
export function sorted(query: string, except: string[] = []): string {
  return query.split("&").filter((part) => part !== "" && !except.includes(nameOf(part))).sort().join("&");
}

/** The first parameter of each name, in the order of the names. */
export function only(query: string, names: string[]): string {
  return names.flatMap((name) => {
    const value = parameter(query, name);
    return value === undefined ? [] : [`${name}=${value}`];
  }).join("&");
}

export function parameter(query: string, name: string): string | undefined {
  const part = query.split("&").find((part) => nameOf(part) === name);
  return part?.slice(name.length + 1);
}

/** The first of `values` that the header accepts: it names it, or a variant of it, and not with q=0. */
export function normalised(header: string, values: string[]): string {
  const accepts = (value: string) => header.split(",").some((entry) => {
    const [name = "", quality = ""] = entry.split(";", 2).map((part) => part.trim().toLowerCase());
    const refused = /^q=\s*0(\.0*)?\s*$/.test(quality);
    return !refused && (name === value || name.startsWith(`${value}-`));
  });
  return values.find(accepts) ?? values[0] ?? "";
}

/** The seconds of a directive; null where it is there without a number; undefined where it is absent. */
export function directive(header: string, name: string): number | null | undefined {
  for (const entry of header.split(",")) {
    const at = entry.indexOf("=");
    const key = (at < 0 ? entry : entry.slice(0, at)).trim().toLowerCase();
    if (key !== name) continue;
    const value = at < 0 ? "" : entry.slice(at + 1).trim().replaceAll('"', "");
    return /^\d+$/.test(value) ? Number(value) : null;
  }
  return undefined;
}

export function words(list: string | null): string[] {
  return (list ?? "").split(",").map((word) => word.trim().toLowerCase()).filter((word) => word !== "");
}

/** Who counts as one client: an IPv4 address, or the /64 of an IPv6 one. */
export function network(address: string): string {
  const [front = [], back] = address.split("::", 2).map((half) => half.split(":").filter((group) => group !== ""));
  if (!address.includes(":") || front.length > 8) return address;
  const zeros = back === undefined ? [] : new Array<string>(8 - front.length - back.length).fill("0");
  return [...front, ...zeros, ...(back ?? [])].slice(0, 4).map((group) => parseInt(group, 16).toString(16)).join(":") + "::";
}
