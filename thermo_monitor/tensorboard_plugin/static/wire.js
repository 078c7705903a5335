// Requests to our own routes, always relative, so that they work behind any prefix.

export class ServerError extends Error {}

export async function ask(path, question) {
  const query = question === undefined ? "" : `?q=${encodeURIComponent(JSON.stringify(question))}`;
  return json(`./${path}${query}`);
}

export async function state(token) {
  return json(`./state${token ? `?token=${encodeURIComponent(token)}` : ""}`);
}

async function json(url) {
  const response = await fetch(url);
  const data = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new ServerError(data.error || `the server answered ${response.status}`);
  return data;
}

export async function arrays(path, question) {
  const response = await fetch(`./${path}?q=${encodeURIComponent(JSON.stringify(question))}`);
  if (!response.ok) throw new ServerError((await response.json().catch(() => ({}))).error || `status ${response.status}`);
  return unpack(await response.arrayBuffer());
}

function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const base = 4 + length;
  head.arrays = head.arrays.map(({ type, shape, at }) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const data =
      type === "float16"
        ? fromHalf(new Uint16Array(buffer, base + at, count))
        : new Float64Array(buffer, base + at, count);
    return { shape, data };
  });
  return head;
}

let halves = null;

// Half to single precision by a table of all 65,536 values: no browser is too old for it.
export function fromHalf(bits) {
  if (!halves) {
    halves = new Float32Array(65536);
    for (let i = 0; i < 65536; i++) {
      const sign = i & 0x8000 ? -1 : 1;
      const exponent = (i >> 10) & 31;
      const fraction = i & 1023;
      if (exponent === 0) halves[i] = sign * fraction * 2 ** -24;
      else if (exponent === 31) halves[i] = fraction ? NaN : sign * Infinity;
      else halves[i] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
    }
  }
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = halves[bits[i]];
  return out;
}
