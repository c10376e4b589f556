import { h, svg } from "./dom.js";

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A line chart. Rows come as {end, step_s, columns}; `series` are [column, label, colour number].
export function chart(title, unit, series) {
  const holder = h("div", { class: "plot", role: "img", "aria-label": title });
  const keys = series.map(([, label, colour]) => h("span", { class: `key k${colour}` }, label));
  const figure = h("figure", {}, h("figcaption", {}, title, keys), holder);
  let plot = null;
  let rows = null;
  const draw = () => {
    plot?.destroy();
    plot = null;
    if (!holder.isConnected || !holder.clientWidth || !rows) return;
    const axis = { stroke: style("--muted"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line") } };
    plot = new window.uPlot(
      {
        width: holder.clientWidth,
        height: 180,
        legend: { show: false },
        cursor: { y: false },
        scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [axis, { ...axis, size: 60, values: (_, ticks) => ticks.map((tick) => `${tick}${unit}`) }],
        series: [{}, ...series.map(([, label, colour]) => ({ label, stroke: style(`--c${colour}`), width: 1.5, points: { show: false } }))],
      },
      rows,
      holder,
    );
  };
  const size = new ResizeObserver(() => plot && plot.width !== holder.clientWidth && draw());
  size.observe(holder);
  return {
    figure,
    draw,
    close: () => {
      size.disconnect();
      plot?.destroy();
      plot = null;
    },
    set: (history, scale = 1) => {
      const times = history.columns[series[0][0]].map((_, place, all) => history.end - (all.length - place) * history.step_s);
      rows = [times, ...series.map(([name]) => history.columns[name].map((value) => value * scale))];
      const last = series.map(([, label], place) => `${label} ${Math.round(rows[place + 1].at(-1) * 100) / 100}${unit}`);
      holder.setAttribute("aria-label", `${title}: now ${last.join(", ")}`);
      if (plot) plot.setData(rows);
      else draw();
    },
  };
}

// Adds the newest row of live numbers to a history, in place of the oldest or of the same period.
export function extend(history, end, row) {
  const steps = Math.min(Math.round((end - history.end) / history.step_s), history.columns[Object.keys(history.columns)[0]].length);
  if (steps < 0) return;
  for (const [name, values] of Object.entries(history.columns)) {
    for (let step = 0; step < steps; step += 1) {
      values.shift();
      values.push(0);
    }
    values[values.length - 1] = row[name] ?? 0;
  }
  history.end = end;
}

export function spark(values, label) {
  const most = Math.max(1, ...values);
  const points = values.map((value, place) => `${((place * 118) / Math.max(1, values.length - 1) + 1).toFixed(1)},${(22 - (value / most) * 20).toFixed(1)}`);
  return svg("svg", { class: "spark", viewBox: "0 0 120 24", role: "img", "aria-label": label },
    svg("line", { x1: 0, y1: 23, x2: 120, y2: 23 }), svg("path", { d: values.length ? `M${points.join("L")}` : "" }));
}
