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

// doing runs what a button does, says how it went, and shows what is so now.
function doing(text, act) {
  return async () => {
    try {
      await act();
      await show();
      say(text);
    } catch (err) {
      say(text + ": " + err.message, true);
    }
  };
}

function row(table, cells) {
  const tr = at(table).tBodies[0].insertRow();
  for (const cell of cells) {
    const td = tr.insertCell();
    if (cell instanceof Node) td.append(cell);
    else td.textContent = cell;
  }
}

function button(text, act) {
  const b = document.createElement("button");
  b.type = "button";
  b.textContent = text;
  b.addEventListener("click", act);
  return b;
}

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
  "Slow tokens (3 s)": { token_latency: "3s" },
  "Tokens of 61 s": { access_token_lifetime: "61s" },
});

async function show() {
  const [state, dials, requests] = await Promise.all([ask("GET", "state"), ask("GET", "dials"), ask("GET", "token-requests")]);
  at("dials").value = JSON.stringify(dials, null, 2);
  at("presets").replaceChildren(
    ...Object.entries(presets(state.applications[0].id)).map(([name, patch]) =>
      button(name, doing(name, () => ask("PATCH", "dials", patch)))),
  );
  const names = {};
  at("tenants").tBodies[0].replaceChildren();
  for (const tenant of state.tenants) {
    names[tenant.id] = tenant.name;
    for (const user of tenant.users) {
      row("tenants", [tenant.name, user.upn, (user.groups || []).join(", "), user.mfa ? "yes" : "no",
        button("Revoke", doing("Revoked the tokens of " + user.upn, () => ask("POST", "revocations", { user: user.upn })))]);
    }
  }
  at("requests").tBodies[0].replaceChildren();
  for (const r of (requests || []).slice(-25).reverse()) {
    row("requests", [new Date(r.time).toLocaleTimeString(), r.grant, names[r.tenant] || r.tenant, r.resource || "",
      r.presented ? r.presented + (r.answered ? " → " + r.answered : "") : r.answered || "",
      r.error ? "AADSTS" + r.error : r.status]);
  }
}

at("zero").addEventListener("click", doing("All dials are at zero", () => ask("DELETE", "dials")));
at("hold").addEventListener("click", doing("Token answers are held back", () => ask("POST", "hold")));
at("release").addEventListener("click", doing("Token answers go out", () => ask("DELETE", "hold")));
at("reset").addEventListener("click", doing("Everything is forgotten", () => ask("POST", "reset")));
at("apply").addEventListener("click", doing("Applied", () => ask("PATCH", "dials", JSON.parse(at("dials").value))));
show().then(() => say("Ready"), (err) => say(err.message, true));
