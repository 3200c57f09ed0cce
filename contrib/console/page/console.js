"use strict";
// Everything that comes from the process is written by textContent, never as HTML: keys are text
// that anybody may have chosen.
const $ = id => document.getElementById(id);
const kept = 120; // seconds in the chart

// node returns an element with text or elements in it.
function node(name, attributes, ...children) {
	const e = document.createElement(name);
	for (const [k, v] of Object.entries(attributes || {})) {
		if (k === "onclick") e.addEventListener("click", v);
		else e.setAttribute(k, v);
	}
	e.append(...children);
	return e;
}
const isolated = text => node("bdi", {}, text);
const cell = (...children) => node("td", {}, ...children);
const number = n => n >= 100 ? Math.round(n).toLocaleString("en") : n >= 10 ? n.toFixed(1) : n >= 0.005 ? n.toFixed(2) : "0";

function duration(seconds) {
	seconds = Math.ceil(seconds);
	if (seconds < 120) return seconds + " s";
	if (seconds < 7200) return Math.round(seconds / 60) + " min";
	if (seconds < 172800) return (seconds / 3600).toFixed(1) + " h";
	return (seconds / 86400).toFixed(1) + " d";
}

// fill replaces the rows of a table. A row that has the focus keeps it.
function fill(body, rows, columns, empty) {
	const focused = body.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
	if (rows.length === 0) rows = [node("tr", {}, node("td", { class: "empty", colspan: columns }, empty))];
	body.replaceChildren(...rows);
	if (focused === undefined) return;
	const again = [...body.querySelectorAll("[data-focus]")].find(e => e.dataset.focus === focused);
	if (again) again.focus({ preventScroll: true });
}

function callerCell(caller) {
	if (!caller.id) return node("th", { scope: "row", class: "key" }, isolated(caller.key));
	const ask = () => lookUp({ id: caller.id, limiter: caller.limiter });
	return node("th", { scope: "row", class: "key" },
		node("button", { type: "button", class: "link", title: "Look up", "data-focus": caller.limiter + caller.id, onclick: ask }, isolated(caller.key)));
}

function callers(id, list, columns, empty) {
	fill($(id), list.map(c => node("tr", {}, callerCell(c), cell(isolated(c.tier ? c.limiter + ", " + c.tier : c.limiter)), ...columns(c))), 4, empty);
}

// The chart: [times, admitted, refused, neither], of each limiter and of all ("").
const series = new Map();
let chart, charted = "", source;

function remember(state) {
	if (source !== state.process + state.started) { // the process has started anew, or this is another one
		source = state.process + state.started;
		series.clear();
		last = null;
	}
	const lists = new Map([["", state.limiters.map(l => l.seconds)], ...state.limiters.map(l => [l.name, [l.seconds]])]);
	for (const [name, seconds] of lists) {
		if (!series.has(name)) series.set(name, [[], [], [], []]);
		const columns = series.get(name);
		const length = Math.max(0, ...seconds.map(s => s.length));
		for (let i = 0; i < length; i++) {
			const at = state.first + i;
			if (columns[0].length > 0 && at <= columns[0].at(-1)) continue; // sent once more after the connection was lost
			columns[0].push(at);
			for (let g = 0; g < 3; g++) columns[g + 1].push(seconds.reduce((sum, s) => sum + s[i][g], 0));
		}
		for (const c of columns) c.splice(0, c.length - kept);
	}
}

const colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

function makeChart() {
	if (chart) chart.destroy();
	const axis = { stroke: colour("faint"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
	const value = (u, v) => v === null || v === undefined ? "–" : v + "/s";
	const line = (label, name, dash) => ({ label, stroke: colour(name), width: 2, dash, fill: dash ? undefined : colour(name) + "20", points: { show: false }, value });
	chart = new uPlot({
		width: $("chart").clientWidth, height: 220, cursor: { drag: { x: false, y: false } },
		series: [{ label: "time", value: "{HH}:{mm}:{ss}" }, line("admitted", "admitted"), line("refused", "refused"), line("neither", "neither", [4, 4])],
		axes: [{ ...axis, values: "{HH}:{mm}:{ss}", space: 80 }, { ...axis, size: 62, label: "decisions a second", labelSize: 20, values: (u, at) => at.map(v => Number.isInteger(v) ? v.toLocaleString("en") : "") }],
		scales: { x: { range: (u, min, max) => [max - kept, max] }, y: { range: (u, min, max) => [0, Math.max(4, (max || 0) * 1.1)] } },
	}, series.get(charted) || [[], [], [], []], $("chart"));
	chart.root.querySelector(".u-legend").setAttribute("aria-hidden", "true"); // the label and the table say it
}

// draw puts the newest seconds into the chart. Where no pointer asks for another, the legend is of the last.
function draw() {
	const data = series.get(charted) || [[], [], [], []];
	chart.setData(data);
	if (chart.cursor.idx === null || chart.cursor.idx === undefined) chart.setLegend({ idx: data[0].length > 0 ? data[0].length - 1 : null });
}

function options(select, names) {
	const known = [...select.options].slice(1).map(o => o.value);
	if (known.length === names.length && known.every((k, i) => k === names[i])) return;
	const chosen = select.value;
	select.replaceChildren(select.options[0], ...names.map(n => node("option", { value: n }, n)));
	select.value = names.includes(chosen) ? chosen : "";
}

// perSecond returns how much more there is than in the state before, by name, and a second.
function perSecond(now, before, name, kind, seconds) {
	const old = before && before.limiters.find(l => l.name === name);
	const rates = {};
	for (const [word, n] of Object.entries(now[kind])) {
		rates[word] = old && seconds > 0 ? Math.max(0, n - (old[kind][word] || 0)) / seconds : 0;
	}
	return rates;
}

const always = ["allowed", "denied", "banned"];
let last = null, paused = false, held = false;

function show(state) {
	$("process").textContent = state.process + ", since " + new Date(state.started).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
	$("hashed").hidden = state.keys;
	const seconds = last ? (state.now - last.now) / 1e3 : 0;
	const found = new Set(state.limiters.flatMap(l => Object.keys(l.totals)));
	const words = [...always, ...[...found].filter(w => !always.includes(w)).sort()];
	$("limiters-head").replaceChildren(node("tr", {}, node("th", { scope: "col", class: "key" }, "Limiter"),
		...words.map(w => node("th", { scope: "col" }, w.replaceAll("_", " "))), node("th", { scope: "col" }, "In flight"), node("th", { scope: "col" }, "Decided in all")));
	fill($("limiters"), state.limiters.map(l => {
		const rates = perSecond(l, last, l.name, "totals", seconds);
		return node("tr", { "data-limiter": l.name }, node("th", { scope: "row", class: "key" }, isolated(l.name), l.dry_run ? " (dry run)" : ""),
			...words.map(w => cell(number(rates[w] || 0))), cell(l.watched ? l.in_flight.toLocaleString("en") : "–"),
			cell(Object.values(l.totals).reduce((a, b) => a + b, 0).toLocaleString("en")));
	}), words.length + 3, "No limiter is watched, and no decision was seen.");
	const silent = state.limiters.filter(l => !l.observed).map(l => l.name);
	$("unobserved").hidden = silent.length === 0;
	$("unobserved").textContent = "No decision was seen of " + silent.join(", ") + ". A limiter tells of them if it is made WithObserver(page.Observe).";
	options($("charted"), state.limiters.map(l => l.name));
	charted = $("charted").value; // its limiter may be gone
	options($("limiter"), state.limiters.filter(l => l.watched).map(l => l.name));

	const left = c => [cell(number(c.rate)), cell(c.capacity < 0 ? "unlimited" : c.remaining.toLocaleString("en") + " of " + c.capacity.toLocaleString("en"))];
	callers("refused", state.refused, c => [cell(number(c.rate)), cell(c.ban > 0 ? "banned" : "")], "Nobody is refused.");
	callers("near", state.near, left, "Nobody is near a limit.");
	callers("admitted", state.admitted, left, "Nobody is here.");
	callers("bans", state.bans, c => [cell(duration(c.ban))], "No ban is known to this process.");

	fill($("answers"), state.limiters.map(l => {
		const rates = perSecond(l, last, l.name, "answers", seconds);
		const all = Object.values(rates).reduce((a, b) => a + b, 0);
		const share = n => all === 0 ? "–" : Math.round(100 * (n || 0) / all) + " %";
		return node("tr", {}, node("th", { scope: "row", class: "key" }, isolated(l.name)), ...["store", "deny-cache", "lease", "fallback"].map(s => cell(share(rates[s]))));
	}), 5, "No limiter is known.");
	fill($("breakers"), state.breakers.map(b => node("tr", {}, node("th", { scope: "row", class: "key" }, isolated(b.server)), cell(isolated(b.store)),
		node("td", b.open ? { class: "bad" } : {}, b.open ? "open: calls fail at once" : "closed"))), 3, "None was given to the page.");
	fill($("limits"), state.limits.map(l => node("tr", {}, node("th", { scope: "row", class: "key" }, isolated(l.limiter)), node("td", { class: "text" }, isolated(l.tier || "–")),
		node("td", { class: "text" }, isolated(l.limits.join("; "))))), 3, "No limit is known.");
	draw();
	last = state;
}

function status(text, kind) {
	if ($("status").textContent === text) return;
	$("status").textContent = text;
	$("status").className = kind;
}

// The look-up.
async function post(action, question) {
	try {
		const response = await fetch(action, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question) });
		const text = await response.text();
		try { return JSON.parse(text); } catch { return { error: text.trim() || "HTTP " + response.status }; }
	} catch (e) {
		return { error: "The process does not answer: " + e.message };
	}
}

let asked = 0;
async function lookUp(question, said) {
	const turn = ++asked;
	const answer = await post("lookup", question);
	if (turn !== asked) return; // another look-up was quicker
	const all = [];
	if (said) all.push(said);
	if (answer.error) all.push(node("p", { class: "bad" }, answer.error));
	else all.push(node("p", {}, "Caller ", isolated(answer.caller), ":"), ...answer.limiters.map(l => usage(question, l)));
	$("result").replaceChildren(...all);
	$("result").scrollIntoView({ block: "nearest" });
}

function usage(question, l) {
	const rows = l.limits.map(u => node("tr", {}, node("th", { scope: "row", class: "key" }, isolated(u.limit)),
		...(u.unlimited ? [cell("–"), cell("unlimited"), cell("–")] : [cell(u.used.toLocaleString("en")), cell(u.remaining.toLocaleString("en") + " of " + u.capacity.toLocaleString("en")), cell(u.used ? duration(u.reset) : "–")])));
	const name = l.tier ? l.limiter + ", tier " + l.tier : l.limiter;
	const part = node("section", { "data-usage": l.limiter }, node("h3", {}, isolated(name), l.ban > 0 ? node("span", { class: "bad" }, " banned for " + duration(l.ban)) : ""));
	if (l.error) part.append(node("p", { class: "bad" }, l.error));
	else part.append(node("div", { class: "scroll", role: "region", "aria-label": "Usage of " + name, tabindex: "0" }, node("table", { "aria-label": "Usage of " + name },
		node("thead", {}, node("tr", {}, ...["Limit", "Used", "Left", "All back in"].map((t, i) => node("th", i ? { scope: "col" } : { scope: "col", class: "key" }, t)))), node("tbody", {}, ...rows))));
	if (last && last.actions) part.append(buttons(question, l));
	return part;
}

function buttons(question, l) {
	const length = node("select", { "aria-label": "Length of the ban" }, ...[["1m", "1 minute"], ["10m", "10 minutes"], ["1h", "1 hour"], ["24h", "1 day"], ["168h", "1 week"]]
		.map(([value, text]) => node("option", { value }, text)));
	const act = (action, more) => async () => {
		const answer = await post(action, { ...question, limiter: l.limiter, ...more() });
		const said = answer.error ? node("p", { class: "bad" }, answer.error) : node("p", {}, "Done: the caller " + answer.done + ".");
		await lookUp(question, said);
		const again = [...$("result").querySelectorAll("[data-act]")].find(b => b.dataset.act === action + " " + l.limiter);
		if (again) again.focus();
	};
	const button = (text, action, title, more) => node("button", { type: "button", title, "data-act": action + " " + l.limiter, onclick: act(action, more) }, text);
	const none = () => ({});
	return node("div", { class: "acts", role: "group", "aria-label": "Actions on this caller of " + l.limiter },
		button("Reset", "reset", "Forget what the caller has used", none), length,
		button("Ban", "ban", "Refuse the caller for this long", () => ({ for: length.value })),
		button("Unban", "unban", "Lift the ban; what the caller has used is forgotten too", none));
}

$("ask").addEventListener("submit", e => {
	e.preventDefault();
	lookUp({ key: $("key").value, limiter: $("limiter").value });
});
$("charted").addEventListener("change", e => { charted = e.target.value; draw(); });
$("pause").addEventListener("click", () => {
	paused = !paused;
	$("pause").setAttribute("aria-pressed", paused);
	tell();
});
// A row that is replaced between the press of a button and its release hears of no click.
addEventListener("pointerdown", () => { held = true; });
// A press that opens a menu may have no release.
for (const end of ["pointerup", "pointercancel", "contextmenu", "blur"]) addEventListener(end, () => { held = false; });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", makeChart);
new ResizeObserver(() => { if (chart && $("chart").clientWidth !== chart.width) chart.setSize({ width: $("chart").clientWidth, height: 220 }); }).observe($("chart"));
makeChart();

// tell says how the page is: lost, if no state came for so long. The process ends the stream every
// few minutes; that is not worth a word.
const silence = 8000; // ms
const noAnswer = "The process does not answer. Trying again …";
let events, timer, lost = false, reason = noAnswer;

function tell() {
	if (lost) status(reason, "lost");
	else if (paused) status("Paused", "");
	else if (last) status("Live", "live");
	else status("Connecting …", "");
}

function wait() {
	clearTimeout(timer);
	timer = setTimeout(() => {
		lost = true;
		tell();
		if (events.readyState === EventSource.OPEN) connect(); // a connection that is dead, and that nobody ended
		wait();
	}, silence);
}

function connect() {
	if (events) events.close();
	events = new EventSource("events");
	events.onmessage = e => {
		lost = false;
		reason = noAnswer;
		wait();
		const state = JSON.parse(e.data);
		remember(state);
		if (!paused && !held) show(state);
		tell();
	};
	events.onerror = () => {
		reason = noAnswer;
		if (events.readyState === EventSource.CLOSED) {
			reason = "The stream was refused; there may be too many pages. Trying again …"; // or by a proxy, while the process starts
			setTimeout(connect, 5000);
		}
		tell();
	};
}
wait();
connect();
