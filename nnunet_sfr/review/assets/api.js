// What the page asks of the server. Every answer that is no success becomes an Error with the server's one line.

export class Unreachable extends Error {}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Unreachable("sfr_review does not answer: it has ended, or the tunnel is closed. What was drawn is kept up to the last draft; start it again and use the new address.");
  }
  if (response.ok) return response;
  const text = await response.text();
  let problem = text;
  try {
    problem = JSON.parse(text).problem;
  } catch { /* a plain line */ }
  throw new Error(problem || `the server answered ${response.status}`);
}

const caseAddress = (name, rest = "") => `cases/${encodeURIComponent(name)}${rest}`;

export const getSession = async () => (await ask("session")).json();
export const getCase = async (name) => (await ask(caseAddress(name))).json();
export const getImage = async (name, channel) => (await ask(caseAddress(name, `/image/${channel}`))).arrayBuffer();

export async function getLabels(name, source) {
  const packed = (await ask(caseAddress(name, `/labels/${encodeURIComponent(source)}`))).body;
  return new Uint8Array(await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

async function putLabels(name, where, labels) {
  const packed = new Blob([labels]).stream().pipeThrough(new CompressionStream("gzip"));
  const body = await new Response(packed).arrayBuffer();
  return (await ask(caseAddress(name, `/${where}`), { method: "PUT", body })).json();
}

export const putDraft = (name, labels) => putLabels(name, "draft", labels);
export const putLabel = (name, labels) => putLabels(name, "label", labels);
export const acceptCase = async (name, source) => (await ask(caseAddress(name, `/accept/${encodeURIComponent(source)}`), { method: "POST" })).json();
export const skipCase = async (name) => (await ask(caseAddress(name, "/skip"), { method: "POST" })).json();
export const prepareCase = (name) => ask(caseAddress(name, "/prepare"), { method: "POST" });
export const getAdded = async () => (await ask("added")).json();
export const runAdding = async () => (await ask("added", { method: "POST" })).json();
