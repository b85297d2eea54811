// Asks the server; every problem becomes an Error whose message can be shown.

let token = "";

export class NeedsToken extends Error {}

export function useToken(text) {
  if (!/^[!-~]*$/.test(text)) throw new NeedsToken("A token has visible ASCII characters only; copy it once more.");
  token = text;
}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer; is it still running?");
  }
  if (answer.ok) return answer.json();
  if (answer.status === 401) throw new NeedsToken(token ? "The token is wrong." : "The server needs its token.");
  const reason = await answer.json().then((body) => body.detail, () => `the server answers ${answer.status}`);
  throw new Error(reason.charAt(0).toUpperCase() + reason.slice(1));
}

export const fetchModel = () => ask("model");

export function predict(file, choices, signal) {
  const form = new FormData();
  const suffix = /\.[a-z]{1,5}$/i.exec(file.name);
  form.append("file", file, `upload${suffix ? suffix[0] : ""}`); // names of files may be names of patients
  const query = new URLSearchParams(choices);
  return ask(`predict?${query}`, { method: "POST", body: form, signal });
}
