"use strict";

const at = (id) => document.getElementById(id);

// ask sends an admin request. The header tells it from one that a page of
// another site could make.
async function ask(method, path, body) {
  const answer = await fetch("/emulator/" + path, {
    method,
    headers: { "X-Emulator-Admin": "1", ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 204) return null;
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error || answer.statusText);
  return value;
}

function say(text, bad) {
  at("status").textContent = text;
  at("status").className = bad ? "bad" : "";
}

// make returns an element with properties and children.
function make(tag, properties, ...children) {
  const e = Object.assign(document.createElement(tag), properties);
  e.append(...children);
  return e;
}

// doing runs what a control does, says how it went, and shows what is so now.
// What was refused is shown as it was before.
function doing(text, act) {
  return async () => {
    try {
      await act();
      await show();
      say(text);
    } catch (err) {
      await show().catch(() => {});
      say(text + ": " + err.message, true);
    }
  };
}

function button(id, text, act, label) {
  const b = make("button", { id, type: "button", textContent: text });
  if (label) b.setAttribute("aria-label", label);
  b.addEventListener("click", act);
  return b;
}

// keeping lets draw replace parts of the page, and leaves the focus, what is
// being typed, and what is unfolded as they were.
function keeping(draw) {
  const was = document.activeElement;
  const open = [...document.querySelectorAll("details[open]")].map((d) => d.id);
  draw();
  for (const id of open) if (at(id)) at(id).open = true;
  const is = was && was.id && at(was.id);
  if (!is || is === was) return;
  if (was.dataset.typing) Object.assign(is, { value: was.value }).dataset.typing = "yes";
  is.focus();
}

document.addEventListener("input", (e) => { e.target.dataset.typing = "yes"; });
document.addEventListener("change", (e) => { delete e.target.dataset.typing; }, true);

// released is when no mouse button is down any more: a button that is replaced
// while it is pressed would not be clicked.
let released = Promise.resolve();
document.addEventListener("pointerdown", () => {
  released = new Promise((done) => {
    for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => setTimeout(done), { once: true });
  });
});

const presets = (application) => ({
  "Tokens without amr": { amr_absent: true },
  "No MFA verdict": { mfa_verdict: "absent" },
  "MFA enforced": { enforce_mfa: true },
  "MFA wanted by ARM (50076)": { refusals: [{ code: 50076, resource: "https://management.azure.com", grant: "refresh_token" }] },
  "Conditional access on Graph (53003)": { refusals: [{ code: 53003, resource: "https://graph.microsoft.com", grant: "refresh_token" }] },
  "ARM not consented (65001)": { refusals: [{ code: 65001, resource: "https://management.azure.com", grant: "refresh_token" }] },
  "Credential expired (7000222)": { expired_credentials: [application] },
  "ID tokens badly signed": { id_token: { bad_sig: true } },
  "Entra busy, 5 times": { throttles: [{ service: "login", status: 429, retry_after: 2, times: 5 }] },
  "Entra down, 5 times": { throttles: [{ service: "login", status: 503, times: 5 }] },
  "Partner Center busy, 5 times": { throttles: [{ service: "partnercenter", status: 429, retry_after: 2, times: 5 }] },
  "Partner Center down": { outage: ["partnercenter"] },
  "Vaults down": { outage: ["keyvault"] },
  "Slow tokens (3 s)": { token_latency: "3s" },
  "Tokens of 61 s": { access_token_lifetime: "61s" },
  "Refresh tokens end 5 s after use": { sign_in: { used_refresh_seconds: 5 } },
  "Clock an hour ahead": { clock_offset: "1h" },
  "Clock 91 days ahead": { clock_offset: "2184h" },
});

// groups are the dials by what they are about, as paths. What none names comes
// under the last heading, so that no dial is missing.
const groups = [
  ["Second factor", ["mfa_verdict", "enforce_mfa", "amr_absent", "mfa_resources"]],
  ["Lifetimes and clock", ["clock_offset", "access_token_lifetime", "id_token_lifetime", "code_lifetime", "auth_time", "sign_in"]],
  ["Refusals and credentials", ["refusals", "expired_credentials", "replication_delay", "secret_lifetime", "scopes_as_asked"]],
  ["Weather", ["outage", "throttles", "latency_millis", "token_latency", "challenges", "service_errors"]],
  ["ID tokens", ["id_token"]],
  ["Key Vault", ["key_vault"]],
  ["Other", []],
];

// elsewhere are dials whose controls stand beside the tenants and users.
const elsewhere = ["mfa_demanded", "mfa_registered"];

// suggestions are the names of properties whose values can be picked.
const suggestions = { code: "list-code", cause: "list-code", tenant: "list-tenant", resource: "list-resource", client: "list-client", user: "list-user", grant: "list-grant",
  mfa_resources: "list-resource", expired_credentials: "list-client", outage: "list-vault", purge_protected: "list-vault" };

const resources = ["https://api.partnercenter.microsoft.com", "https://graph.microsoft.com", "https://management.azure.com", "https://vault.azure.net"];

let schemas, dials;

const resolve = (s) => {
  const ref = s.$ref || (s.allOf && s.allOf[0].$ref);
  return ref ? { ...schemas[ref.split("/").pop()], description: s.description } : s;
};

const words = (name) => {
  const text = name.replaceAll("_", " ").replace(/\b(mfa|amr|id|idp)\b/g, (w) => w.toUpperCase());
  return text[0].toUpperCase() + text.slice(1);
};

const zero = (s) => ({ boolean: false, integer: 0, array: [], object: {} })[s.type] ?? (s.format === "duration" ? "0s" : "");

// set reports whether something is in another position than zero.
const set = (v) => (v !== null && typeof v === "object" ? Object.values(v).some(set) || (Array.isArray(v) && v.length > 0) : ![undefined, null, false, 0, "", "0s"].includes(v));

// control returns the field of a dial; change is called with a new value.
function control(id, name, s, value, change) {
  s = resolve(s);
  if (s.type === "array") return list(id, name, s, value || [], change);
  if (s.type === "object") return object(id, s, value || {}, change);
  const label = make("label", { htmlFor: id, textContent: words(name) });
  const hint = make("p", { className: "hint", id: id + "-hint", textContent: s.description || "" });
  let input;
  if (s.type === "boolean") {
    input = make("input", { id, type: "checkbox", checked: !!value });
    input.addEventListener("change", () => change(input.checked));
  } else if (s.enum) {
    const none = !s.enum.includes("") ? "choose" : name === "service" ? "each of them" : "usual";
    input = make("select", { id }, ...[...new Set(["", ...s.enum])].map((v) => make("option", { value: v, textContent: v || none, selected: v === (value || "") })));
    input.addEventListener("change", () => change(input.value));
  } else {
    input = make("input", { id, type: "text", autocomplete: "off", value: set(value) ? value : "", placeholder: s.format === "duration" ? "such as 90s or 72h" : "" });
    if (s.type === "integer") input.inputMode = "numeric";
    if (suggestions[name]) input.setAttribute("list", suggestions[name]);
    input.addEventListener("change", () => {
      const text = input.value.trim();
      if (s.type === "integer" && !/^\d*$/.test(text)) {
        input.setAttribute("aria-invalid", "true");
        say(words(name) + " is a number", true);
        return;
      }
      change(text === "" ? zero(s) : s.type === "integer" ? Number(text) : text);
    });
  }
  if (s.description) input.setAttribute("aria-describedby", hint.id);
  if (s.type === "boolean") return make("div", { className: "field check" }, input, make("div", {}, label, hint));
  return make("div", { className: "field" }, label, input, hint);
}

// object returns the fields of a dial that has several positions. A map has
// those that its description names, and is changed as a whole.
function object(id, s, value, change) {
  const map = s.propertyNames;
  const names = map ? Object.fromEntries(map.enum.map((n) => [n, s.additionalProperties])) : s.properties || {};
  const changed = (name) => (v) => {
    if (!map) return change({ [name]: v });
    const { [name]: _, ...others } = value;
    return change(set(v) ? { ...others, [name]: v } : others);
  };
  return make("div", { className: "fields list" }, ...Object.entries(names).map(([name, p]) => control(id + "-" + name, name, p, value[name], changed(name))));
}

// drafts are new elements of lists that are not complete yet, by the list's id.
const drafts = new Map();

// list returns the elements of a dial that is a list, and ways to change it.
// An element that lacks what it needs is not sent.
function list(id, name, s, value, change) {
  const item = resolve(s.items);
  const missing = (v) => (item.required || []).filter((p) => !set(v[p]));
  const update = (i) => (v) => {
    if (i === value.length && (!set(v) || missing(v).length)) {
      drafts.set(id, v);
      say(words(name) + ": " + (missing(v).map(words).join(", ") || "something") + " is still missing");
      return undefined;
    }
    drafts.delete(i === value.length ? id : "");
    return change(i === value.length ? [...value, v] : value.map((x, n) => (n === i ? v : x)));
  };
  const remove = (i) => () => {
    if (i < value.length) return change(value.filter((_, n) => n !== i));
    drafts.delete(id);
    keeping(drawDials);
    return at(id + "-add").focus();
  };
  const all = drafts.has(id) ? [...value, drafts.get(id)] : value;
  const rows = all.map((v, i) => make("div", { className: "item", role: "group", ariaLabel: words(name) + " " + (i + 1) },
    element(id + "-" + i, name, item, v, update(i)),
    make("div", { className: "buttons" }, button(id + "-" + i + "-remove", "Remove", remove(i), "Remove " + words(name) + " " + (i + 1)))));
  const add = button(id + "-add", "Add", () => {
    if (!drafts.has(id)) drafts.set(id, zero(item));
    keeping(drawDials);
    document.querySelector("[id^='" + id + "-" + value.length + "']").focus();
  }, "Add to " + words(name));
  return make("div", { className: "list", role: "group", ariaLabel: words(name) },
    make("strong", { textContent: words(name) }), make("p", { className: "hint", textContent: s.description || "" }), ...rows, add);
}

// element returns the fields of one element of a list.
function element(id, name, item, value, change) {
  if (item.type !== "object") return control(id, name, item, value, change);
  let now = value; // of a draft, several positions are set before it is drawn again
  return make("div", { className: "fields" }, ...Object.entries(item.properties).map(([p, s]) =>
    control(id + "-" + p, p, s, value[p], (v) => change((now = { ...now, [p]: v })))));
}

function patch(name, value) {
  return doing(words(name) + " changed", async () => {
    // A map merges, so one that may have lost a position is emptied first.
    if (schemas.Dials.properties[name].propertyNames) await ask("PATCH", "dials", { [name]: null });
    if (name === "key_vault" && value.budgets) await ask("PATCH", "dials", { key_vault: { budgets: null } });
    await ask("PATCH", "dials", { [name]: value });
  })();
}

function drawDials() {
  const all = schemas.Dials.properties;
  const named = [...groups.flatMap(([, names]) => names), ...elsewhere];
  at("dials").replaceChildren(...groups.map(([title, names], i) => {
    if (names.length === 0) names = Object.keys(all).filter((n) => !named.includes(n));
    if (names.length === 0) return "";
    const on = names.filter((n) => set(dials[n]));
    const summary = make("summary", {}, title, ...(on.length ? [make("span", { className: "set", textContent: " · " + on.map(words).join(", ") })] : []));
    return make("details", { id: "group-" + i }, summary, make("div", { className: "fields" },
      ...names.filter((n) => all[n]).map((n) => control("dial-" + n, n, all[n], dials[n], (v) => patch(n, v)))));
  }));
  at("dials-json").value = JSON.stringify(dials, null, 2);
}

function person(tenant, u) {
  const name = u.upn.toLowerCase();
  const key = u.id;
  const mail = u.home_tenant && u.home_tenant !== tenant.id ? u.mail : u.upn;
  const factor = make("input", { id: "factor-" + key, type: "checkbox", checked: (dials.mfa_registered || {})[name] ?? u.mfa });
  factor.setAttribute("aria-label", "Second factor of " + mail);
  factor.addEventListener("change", doing("Second factor of " + mail + " changed", () => ask("PATCH", "dials", { mfa_registered: { [name]: factor.checked } })));
  return make("div", { className: "person" },
    make("span", { className: "who" }, mail, make("span", { className: "quiet", textContent: [" ", ...(u.groups || [])].join(" ") })),
    make("span", { className: "field check" }, factor, make("label", { htmlFor: factor.id, textContent: "Second factor" })),
    button("revoke-" + key, "Revoke tokens", doing("Revoked the tokens of " + mail, () => ask("POST", "revocations", { user: mail })), "Revoke the tokens of " + mail),
    button("password-" + key, "Change password", doing("Changed the password of " + mail, () => ask("POST", "revocations", { user: mail, password: true })), "Change the password of " + mail));
}

function drawTenants(state) {
  at("tenants-count").textContent = state.tenants.length + " of " + state.total + (state.tenants.length === shown ? " (the first; search for others)" : "");
  at("tenants").replaceChildren(...state.tenants.map((t) => {
    const demand = make("input", { id: "demand-" + t.id, type: "checkbox", checked: (dials.mfa_demanded || {})[t.id] ?? true });
    demand.addEventListener("change", doing("Demand of MFA by " + t.name + " changed", () => ask("PATCH", "dials", { mfa_demanded: { [t.id]: demand.checked } })));
    return make("details", { id: "tenant-" + t.id },
      make("summary", {}, t.name + " ", make("span", { className: "quiet", textContent: t.kind + ", " + t.domain })),
      make("p", { className: "quiet", textContent: t.id + (t.customers ? "; customers: " + t.customers.length : "") }),
      make("div", { className: "field check" }, demand, make("label", { htmlFor: demand.id, textContent: "Demands MFA at sign-in" })),
      ...t.users.map((u) => person(t, u)));
  }));
}

function drawRequests(requests, names) {
  const body = at("requests").tBodies[0];
  body.replaceChildren();
  for (const r of (requests || []).toReversed()) {
    const tr = body.insertRow();
    const grant = r.grant.split(":").pop();
    for (const text of [new Date(r.time).toLocaleTimeString(), grant, names[r.tenant] || r.tenant, r.resource || "",
      r.presented ? r.presented + (r.answered ? " → " + r.answered : "") : r.answered || "", r.error ? "AADSTS" + r.error : r.status]) tr.insertCell().textContent = text;
  }
  if (body.rows.length === 0) body.insertRow().append(make("td", { colSpan: 6, textContent: "None yet." }));
}

function drawPresets(application) {
  at("presets").replaceChildren(...Object.entries(presets(application)).map(([name, change], i) =>
    button("preset-" + i, name, doing(name, () => ask("PATCH", "dials", change)))));
}

// options replaces what a list of suggestions, or a select, offers.
function options(id, values) {
  if (!at(id)) at("lists").append(make("datalist", { id }));
  const chosen = at(id).value;
  at(id).replaceChildren(...values.map(([value, text]) => make("option", { value, textContent: text || value })));
  if (chosen) at(id).value = chosen;
}

function drawLists(state, vaults) {
  options("list-tenant", state.tenants.map((t) => [t.id, t.name]));
  options("list-domain", state.tenants.map((t) => [t.domain, t.name]));
  options("list-user", state.tenants.flatMap((t) => t.users.map((u) => [u.upn])));
  options("list-client", state.applications.map((a) => [a.id, a.name]));
  options("list-resource", resources.map((r) => [r]));
  options("list-vault", [["*", "all"], ...vaults.map((v) => [v.name])]);
  options("list-grant", [["authorization_code"], ["refresh_token"], ["client_credentials"], ["urn:ietf:params:oauth:grant-type:device_code"], ["urn:ietf:params:oauth:grant-type:jwt-bearer"]]);
  options("consent-application", state.applications.map((a) => [a.id, a.name]));
  options("consent-resource", resources.map((r) => [r]));
}

const shown = 50; // tenants, at the most

let turns = 0;

// show draws what is so now, unless it has been asked to do so again meanwhile.
async function show() {
  const turn = ++turns;
  const query = "state?limit=" + shown + "&q=" + encodeURIComponent(at("search").value.trim());
  const [state, now, requests, vaults] = await Promise.all([ask("GET", query), ask("GET", "dials"), ask("GET", "token-requests?limit=25"), ask("GET", "vaults")]);
  await released;
  if (turn !== turns) return;
  dials = now;
  keeping(() => {
    drawLists(state, vaults);
    drawPresets(state.applications.length ? state.applications[0].id : "");
    drawDials();
    drawTenants(state);
    drawRequests(requests, Object.fromEntries(state.tenants.map((t) => [t.id, t.name])));
  });
}

async function begin() {
  const [description, errors] = await Promise.all([ask("GET", "openapi.json"), ask("GET", "errors")]);
  schemas = description.components.schemas;
  options("list-code", errors.map((e) => [e.code, e.code + " " + e.text.slice(0, 60)]));
  await show();
}

const consented = () => ({ tenant: at("consent-tenant").value.trim(), application: at("consent-application").value, resource: at("consent-resource").value });
const on = (id, text, act) => at(id).addEventListener("click", doing(text, act));
on("zero", "All dials are at zero", () => ask("DELETE", "dials"));
on("hold", "Token answers are held back", () => ask("POST", "hold"));
on("release", "Token answers go out", () => ask("DELETE", "hold"));
on("reset", "Everything is forgotten", () => ask("POST", "reset"));
on("apply", "Applied", () => ask("PATCH", "dials", JSON.parse(at("dials-json").value)));
on("again", "Ready", () => {});
on("consent-give", "Consent is given", () => ask("POST", "consents", consented()));
on("consent-remove", "Consent is taken back", () => ask("DELETE", "consents?" + new URLSearchParams(consented())));
at("search").addEventListener("input", () => show().catch((err) => say(err.message, true)));
begin().then(() => say("Ready"), (err) => say(err.message, true));
