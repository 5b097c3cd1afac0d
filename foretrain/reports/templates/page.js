"use strict";
(() => {
  const { axes, tables, charts } = JSON.parse(document.getElementById("page-data").textContent);

  // Tokens of a row are one stop of the tab key; the arrows move inside.
  for (const row of document.querySelectorAll(".tokens")) {
    row.addEventListener("keydown", (event) => {
      const from = document.activeElement.closest(".token");
      const to = { ArrowRight: from?.nextElementSibling, ArrowLeft: from?.previousElementSibling, Home: row.firstElementChild, End: row.lastElementChild }[event.key];
      if (!to || !from) return;
      event.preventDefault();
      to.focus();
    });
    row.addEventListener("focusin", (event) => {
      row.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
      event.target.setAttribute("tabindex", "0");
    });
  }

  const plots = [...document.querySelectorAll("[data-chart]")];
  const control = document.querySelector(".control");
  if (!plots.length) return;

  const inColour = (name) => {
    const [, token, opacity] = /^@(\w+)(?:\/([\d.]+))?$/.exec(name);
    const variable = /^\d$/.test(token) ? `--s${token}` : `--${token}`;
    const hex = getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
    const full = hex.length === 4 ? "#" + [...hex.slice(1)].map((digit) => digit + digit).join("") : hex;
    const parts = [1, 3, 5].map((start) => parseInt(full.slice(start, start + 2), 16));
    return `rgba(${parts.join(",")},${opacity ?? 1})`;
  };
  // A copy of a figure with its colour names resolved for the theme in force.
  const painted = (value) => {
    if (typeof value === "string") return /^@\w+(\/[\d.]+)?$/.test(value) ? inColour(value) : value;
    if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(painted);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, painted(child)]));
    }
    return value;
  };

  const longest = axes.seconds ? axes.seconds[axes.seconds.length - 1] : 0;
  const [time, timeUnit] = longest > 7200 ? [3600, "hours"] : longest > 180 ? [60, "minutes"] : [1, "seconds"];
  const labels = {
    steps: "optimizer steps", tokens: "training tokens", flops: "training FLOPs", seconds: `training time (${timeUnit})`,
  };
  // Steps as another unit, by interpolation in the table that the page carries (or the curve names); a forecast goes
  // on beyond its end, at the rate of its last part.
  const converted = (steps, unit, table = axes) => {
    if (unit === "steps") return steps;
    const from = table.steps, to = table[unit], scale = unit === "seconds" ? time : 1;
    let at = 0;
    return steps.map((step) => {
      while (at < from.length - 2 && from[at + 1] < step) at += 1;
      if (from.length < 2) return to[0] / scale;
      const part = Math.max(0, (step - from[at]) / (from[at + 1] - from[at]));
      return (to[at] + part * (to[at + 1] - to[at])) / scale;
    });
  };

  // The whole run in every chart, so that they can be read one below the other; and all of a curve that goes beyond it.
  const span = (unit, log, figure) => {
    const ends = figure.data.flatMap(({ x, table }) => converted(x.slice(-1), unit, tables[table]));
    const found = [axes, ...Object.values(tables)].flatMap((table) => converted(table.steps, unit, table)).concat(ends);
    const all = found.filter((value) => value > 0).sort((a, b) => a - b);
    if (!all.length) return log ? [0, 1] : [-1, 1];
    const last = all[all.length - 1];
    return log ? [Math.log10(all[0]) - 0.05, Math.log10(last) + 0.03] : [-0.008 * last, 1.012 * last];
  };

  const coarse = matchMedia("(pointer: coarse)").matches;
  const sans = getComputedStyle(document.documentElement).getPropertyValue("--sans").trim();
  const axis = (extra) => ({
    gridcolor: "@grid", linecolor: "@rule", tickcolor: "@rule", zeroline: false, automargin: false, fixedrange: coarse,
    tickfont: { size: 12 }, ...extra,
  });
  const layout = (figure, unit, log, width) => ({
    ...figure.layout,
    width,
    font: { family: sans, size: 12, color: "@muted" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: figure.layout.yaxis.rows ? 12 : 50, r: 14, t: 24, b: 42 },
    showlegend: false, hovermode: figure.layout.xaxis ? "closest" : "x unified", dragmode: coarse ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "@muted", activecolor: "@ink" },
    hoverlabel: { bgcolor: "@paper", bordercolor: "@rule", font: { family: sans, size: 12, color: "@ink" } },
    xaxis: figure.layout.xaxis ? axis({
      title: { text: figure.layout.xaxis.label, standoff: 8, font: { size: 12 } }, showline: true, ticks: "outside", ticklen: 4,
      nticks: width < 420 ? 4 : 6, exponentformat: "power", ...figure.layout.xaxis,
    }) : axis({
      title: { text: labels[unit], standoff: 8, font: { size: 12 } }, type: log ? "log" : "linear", showgrid: false,
      showline: true, ticks: "outside", ticklen: 4, nticks: width < 330 ? 4 : width < 420 ? 5 : 8,
      exponentformat: unit === "flops" ? "power" : "B", range: span(unit, log, figure), ...(log ? { dtick: 1 } : {}),
    }),
    yaxis: figure.layout.yaxis.rows ? axis({
      showgrid: false, automargin: true, ...figure.layout.yaxis, tickfont: { size: 13, color: "@ink" },
    }) : axis({ nticks: figure.layout.height < 200 ? 4 : 6, exponentformat: "B", ...(figure.layout.yaxis.type === "log" ? { dtick: 1 } : {}), ...figure.layout.yaxis }),
    annotations: [{
      text: figure.unit, xref: "paper", yref: "paper", x: 0, y: 1, xshift: -48, yshift: 20, xanchor: "left", yanchor: "top",
      showarrow: false, font: { size: 12 },
    }],
  });
  const config = {
    displaylogo: false, displayModeBar: coarse ? false : "hover", modeBarButtons: [["toImage", "resetScale2d"]], toImageButtonOptions: { format: "svg" },
  };

  const draw = (width) => {
    const chosen = control?.querySelector("input[name=unit]:checked");
    const unit = chosen ? chosen.value : "steps";
    const log = Boolean(control?.querySelector("input[name=log]").checked);
    for (const plot of plots) {
      const figure = charts[plot.dataset.chart];
      // Step 0 has no place on a logarithmic axis; left in, plotly would draw a level line from the edge.
      const placed = (steps, table) => converted(steps, unit, table).map((value) => (log && value <= 0 ? null : value));
      const data = figure.data.map(({ table, ...trace }) => ({
        type: "scatter", ...trace, x: figure.layout.xaxis ? trace.x : placed(trace.x, tables[table]),
      }));
      const wide = plot.closest(".wide") !== null;
      const columns = wide ? 1 : plot.closest(".small") ? 3 : 2;
      const room = width ? (width - 24 * (columns - 1)) / columns : plot.clientWidth;
      window.Plotly.react(plot, painted(data), painted(layout(figure, unit, log, room)), config);
    }
  };

  const unpacked = async (element) => {
    const bytes = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const start = async () => {
    const packed = document.getElementById("plotly");
    const script = document.createElement("script");
    script.nonce = packed.dataset.nonce;
    script.textContent = await unpacked(packed);
    document.head.append(script);
    draw();
    if (control) {
      control.hidden = false;
      control.addEventListener("change", () => draw());
      control.addEventListener("submit", (event) => event.preventDefault());
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
    // Paper is as wide as A4 less its margins.
    const root = document.documentElement;
    addEventListener("beforeprint", () => {
      root.classList.add("printing");
      draw(680);
    });
    addEventListener("afterprint", () => {
      root.classList.remove("printing");
      draw();
    });
    let waiting;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => draw(), 120);
    });
    root.dataset.drawn = "yes";
  };
  start().catch((error) => {
    console.error(error);
    for (const message of document.querySelectorAll(".fallback[hidden]")) message.hidden = false;
    for (const plot of plots) plot.style.height = "auto";
  });
})();
