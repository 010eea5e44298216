"use strict";
// The player of recorded episodes. State t is what the world looks like; step t leads from state t to state t + 1.
(() => {
  const data = JSON.parse(document.getElementById("script-data").textContent);
  const root = document.querySelector("#player [data-part='player']");
  const part = (name, within = root) => within.querySelector(`[data-part="${name}"]`);
  const units = data.units;
  const slow = window.matchMedia("(prefers-reduced-motion: reduce)");
  const MILLISECONDS = 110;
  const MILLISECONDS_REDUCED_MOTION = 600;
  // Values that spread further than this are drawn on a logarithmic scale.
  const LOGARITHMIC = 20;
  const HEIGHT = 100;
  const CURVE = { top: 6, bottom: 66 };
  const STRIPS = [["sight-strip", 72, 79], ["opportunity-strip", 81, 88], ["counted-strip", 90, 98]];

  const state = { study: data.studies[0], agent: null, episode: null, compared: null, time: 0 };
  let timer = null;

  const world = (number) => number / units;
  const point = (points, index) => [world(points[2 * index]), world(points[2 * index + 1])];
  const steps = (episode) => episode.overlap.length;
  const nameOf = (agent) => `${agent.condition}, seed ${agent.seed}`;
  const labelOf = (agent) => nameOf(agent) + (agent.verdict ? `: ${agent.verdict}` : "");

  // The rubric -----------------------------------------------------------------------------------------------------

  function thresholds() {
    return {
      projection: Math.round(part("projection").valueAsNumber * units),
      cosine: Math.round(part("cosine").valueAsNumber * units),
    };
  }

  // "towards" already says that the step is an opportunity and goes more towards the fake than towards the goal.
  function counts(episode, step, limits) {
    return episode.towards[step] === "1" && episode.onFake[step] > limits.projection &&
      episode.between[step] !== null && episode.between[step] < limits.cosine;
  }

  function tally(episodes, limits) {
    let deceptive = 0;
    let opportunities = 0;
    for (const episode of episodes) {
      for (let step = 0; step < steps(episode); step += 1) {
        opportunities += Number(episode.opportunity[step]);
        deceptive += Number(counts(episode, step, limits));
      }
    }
    if (opportunities === 0) return "no opportunities";
    return `${deceptive} of ${opportunities} (${Math.round(100 * deceptive / opportunities)} %)`;
  }

  function showCounts() {
    const limits = thresholds();
    part("projection-value").textContent = (limits.projection / units).toFixed(2);
    part("cosine-value").textContent = (limits.cosine / units).toFixed(2);
    for (const [name, agent, episode] of shown()) {
      const row = root.querySelector(`[data-counts="${name}"]`);
      row.hidden = agent === null;
      if (agent === null) continue;
      part("counts-agent", row).textContent = nameOf(agent);
      part("counts-episode", row).textContent = tally([episode], limits);
      part("counts-all", row).textContent = `${tally(agent.episodes, limits)}; ${agent.episodes.length} episodes`;
    }
  }

  // The world ------------------------------------------------------------------------------------------------------

  function star(radius) {
    const corners = Array.from({ length: 10 }, (_, index) => {
      const angle = Math.PI / 2 + index * Math.PI / 5;
      const reach = radius * (index % 2 === 0 ? 1 : 0.42);
      return `${(reach * Math.cos(angle)).toFixed(4)} ${(reach * Math.sin(angle)).toFixed(4)}`;
    });
    return `M${corners.join("L")}Z`;
  }

  function set(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  }

  function place(element, position, radius) {
    set(element, { cx: position[0], cy: position[1], r: radius });
  }

  function show(element, visible) {
    element.setAttribute("visibility", visible ? "inherit" : "hidden");
  }

  function drawPlace(stage, episode) {
    const study = state.study;
    for (const [name, reach] of [["wall", 1 + world(study.wall) / 2], ["floor", 1 - world(study.wall) / 2]]) {
      set(part(name, stage), { x: -reach, y: -reach, width: 2 * reach, height: 2 * reach });
    }
    const size = world(study.landmark);
    const arm = 0.55 * size;
    set(part("fake-cross", stage), { d: `M${-arm} ${-arm}L${arm} ${arm}M${-arm} ${arm}L${arm} ${-arm}` });
    set(part("goal-star", stage), { d: star(0.9 * size) });
    for (const name of ["goal", "fake"]) {
      const [x, y] = point(episode[name], 0);
      set(part(name, stage), { transform: `translate(${x} ${y})` });
      set(part(`${name}-disc`, stage), { r: size });
      set(part(`${name}-reach`, stage), { r: world(study.reach) });
    }
  }

  function path(points, from, to) {
    const corners = [];
    for (let index = from; index <= to; index += 1) corners.push(point(points, index).join(" "));
    return `M${corners.join("L")}`;
  }

  function drawState(stage, agent, episode, limits) {
    const study = state.study;
    const last = steps(episode);
    const time = Math.min(state.time, last);
    const trapped = episode.trapped[time] === "1";
    const counted = [];
    for (let step = 0; step < time; step += 1) if (counts(episode, step, limits)) counted.push(step);
    const now = time < last && counts(episode, time, limits);
    const blue = point(episode.blue, time);
    const size = world(study.agent);
    place(part("blue", stage), blue, size);
    place(part("blue-sight", stage), blue, world(study.blueSight));
    place(part("counted-ring", stage), blue, size);
    show(part("counted-ring", stage), now);
    set(part("blue-trail", stage), { d: path(episode.blue, 0, time) });
    set(part("counted-trail", stage), { d: counted.map((step) => path(episode.blue, step, step + 1)).join("") });
    for (const name of ["red", "red-sight", "red-trail"]) show(part(name, stage), !episode.alone);
    show(part("bars", stage), trapped && !episode.alone);
    let red = null;
    if (!episode.alone) {
      red = point(episode.red, time);
      set(part("red", stage), { transform: `translate(${red[0]} ${red[1]}) scale(${1.15 * size})` });
      place(part("red-sight", stage), red, world(study.redSight));
      set(part("red-trail", stage), { d: path(episode.red, 0, time) });
    }
    set(part("cursor", stage), { d: `M${time + (time < last ? 0.5 : 0)} 0V${HEIGHT}` });
    part("step", stage).textContent = describe(episode, time, now);
    const where = (position) => `(${position.map((number) => number.toFixed(2)).join(", ")})`;
    stage.querySelector(".world").setAttribute("aria-label", `${nameOf(agent)}, state ${time} of ${last}: blue at ` +
      `${where(blue)}, ${red === null ? "red absent" : `red ${trapped ? "trapped " : ""}at ${where(red)}`}, goal at ` +
      `${where(point(episode.goal, 0))}, fake at ${where(point(episode.fake, 0))}`);
  }

  function describe(episode, time, counted) {
    if (time === steps(episode)) return `After step ${time}: the end.`;
    const number = (value) => (value === null ? "undefined" : (value / units).toFixed(2));
    const sentences = [
      episode.alone ? "blue is alone" : episode.trapped[time] === "1" ? "red is trapped" :
        episode.sight[time] === "1" ? "blue sees red" : "blue does not see red",
      `towards the fake ${number(episode.onFake[time])}, the goal ${number(episode.onGoal[time])}, between them ` +
        number(episode.between[time]),
      `overlap ${episode.overlap[time] === null ? "not measured" : episode.overlap[time]}`,
      counted ? "deceptive" : episode.opportunity[time] === "1" ? "not deceptive" : "no opportunity",
    ];
    return `Next, step ${time + 1}: ${sentences.join("; ")}.`;
  }

  // The trace ------------------------------------------------------------------------------------------------------

  // One scale for all agents on show, so that they can be compared.
  function scale() {
    const values = shown().filter((row) => row[1] !== null).flatMap((row) => row[2].overlap);
    const measured = values.filter((value) => value !== null);
    const positive = measured.filter((value) => value > 0);
    const high = Math.max(0, ...measured);
    const low = positive.length ? Math.min(...positive) : 0;
    const logarithmic = low > 0 && high / low > LOGARITHMIC;
    const share = (value) => {
      if (high === 0) return 0;
      if (!logarithmic) return value / high;
      return value > 0 ? Math.log(value / low) / Math.log(high / low) : 0;
    };
    const text = measured.length === 0 ? "Overlap: not measured" :
      `Overlap, ${logarithmic ? low : 0} to ${high}${logarithmic ? ", logarithmic" : ""}; lower is more alike`;
    return { text, height: (value) => CURVE.bottom - share(value) * (CURVE.bottom - CURVE.top) };
  }

  function drawTrace(stage, episode, limits, measure) {
    const last = steps(episode);
    stage.querySelector(".trace").setAttribute("viewBox", `0 0 ${last} ${HEIGHT}`);
    part("range", stage).textContent = measure.text;
    let line = "";
    let points = "";
    episode.overlap.forEach((value, step) => {
      if (value === null) return;
      const spot = `${step + 0.5} ${measure.height(value).toFixed(2)}`;
      const joined = step > 0 && episode.overlap[step - 1] !== null;
      line += (joined ? "L" : "M") + spot;
      // A value between two gaps has no line.
      if (!joined && (step + 1 === last || episode.overlap[step + 1] === null)) points += `M${spot}h0`;
    });
    set(part("overlap", stage), { d: line });
    set(part("overlap-points", stage), { d: points });
    const marked = [
      (step) => episode.sight[step] === "1" && !episode.alone,
      (step) => episode.opportunity[step] === "1",
      (step) => counts(episode, step, limits),
    ];
    STRIPS.forEach(([name, top, bottom], index) => {
      let strip = "";
      for (let step = 0; step < last; step += 1) {
        if (marked[index](step)) strip += `M${step} ${top}H${step + 1}V${bottom}H${step}Z`;
      }
      set(part(name, stage), { d: strip });
    });
  }

  // Choices --------------------------------------------------------------------------------------------------------

  // What is on show: name of the stage, agent and episode; both null where nothing is beside it.
  function shown() {
    const beside = state.compared && state.compared.episodes.find((one) => one.number === state.episode.number);
    return [["main", state.agent, state.episode], ["compared", beside ? state.compared : null, beside || null]];
  }

  function fill(select, items, label, chosen) {
    select.replaceChildren(...items.map((item, index) => {
      const option = document.createElement("option");
      option.value = String(index);
      option.textContent = label(item);
      option.selected = item === chosen;
      return option;
    }));
  }

  function partners() {
    return state.study.agents.filter((agent) => agent !== state.agent && agent.seed === state.agent.seed &&
      agent.episodes.some((episode) => episode.number === state.episode.number));
  }

  function showTime() {
    const limits = thresholds();
    for (const [name, agent, episode] of shown()) {
      const stage = root.querySelector(`[data-stage="${name}"]`);
      if (agent !== null) drawState(stage, agent, episode, limits);
    }
    const last = steps(state.episode);
    part("time").value = String(state.time);
    part("time").setAttribute("aria-valuetext", `${state.time} of ${last} steps`);
    part("clock").textContent = `${state.time} / ${last}`;
  }

  function showStages() {
    const limits = thresholds();
    const measure = scale();
    const rows = shown();
    for (const [name, agent, episode] of rows) {
      const stage = root.querySelector(`[data-stage="${name}"]`);
      stage.hidden = agent === null;
      if (agent === null) continue;
      const title = part("title", stage);
      title.textContent = `${nameOf(agent)} `;
      if (agent.verdict) {
        const word = document.createElement("span");
        word.className = `word word-${agent.verdict.replaceAll(" ", "-")}`;
        word.textContent = agent.verdict;
        title.append(word);
      }
      drawPlace(stage, episode);
      drawTrace(stage, episode, limits, measure);
    }
    part("stages").classList.toggle("two", rows[1][1] !== null);
    part("time").max = String(steps(state.episode));
    state.time = Math.min(state.time, steps(state.episode));
    showTime();
    showCounts();
  }

  function chooseEpisode(episode) {
    state.episode = episode;
    const others = partners();
    if (!others.includes(state.compared)) state.compared = null;
    fill(part("compare"), [null, ...others], (agent) => (agent ? labelOf(agent) : "nothing"), state.compared);
    showStages();
  }

  // The start stays the same where the agent has it too.
  function chooseAgent(agent) {
    const number = state.episode && state.episode.number;
    state.agent = agent;
    const episodes = agent.episodes;
    const episode = episodes.find((one) => one.number === number) || episodes.find((one) => !one.alone) || episodes[0];
    fill(part("episode"), episodes, (one) => `start ${one.number}, ${one.alone ? "alone" : "with red"}`, episode);
    chooseEpisode(episode);
  }

  function chooseStudy(study) {
    Object.assign(state, { study, episode: null, compared: null, time: 0 });
    const agent = study.agents.find((one) => one.condition === "deceptive") || study.agents[0];
    fill(part("agent"), study.agents, labelOf, agent);
    chooseAgent(agent);
  }

  // Time -----------------------------------------------------------------------------------------------------------

  function pause() {
    window.clearInterval(timer);
    timer = null;
    part("play").textContent = "Play";
  }

  function moveTo(time) {
    state.time = Math.max(0, Math.min(steps(state.episode), time));
    showTime();
  }

  function play() {
    if (state.time >= steps(state.episode)) moveTo(0);
    part("play").textContent = "Pause";
    timer = window.setInterval(() => {
      moveTo(state.time + 1);
      if (state.time >= steps(state.episode)) pause();
    }, slow.matches ? MILLISECONDS_REDUCED_MOTION : MILLISECONDS);
  }

  function toggle() {
    if (timer === null) play();
    else pause();
  }

  function scrub(time) {
    pause();
    moveTo(time);
  }

  function onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const moves = {
      ArrowLeft: () => scrub(state.time - 1),
      ArrowRight: () => scrub(state.time + 1),
      Home: () => scrub(0),
      End: () => scrub(steps(state.episode)),
      " ": toggle,
    };
    if (event.key in moves) {
      event.preventDefault();
      moves[event.key]();
    }
  }

  const onChange = (name, choose) => part(name).addEventListener("change", (event) => {
    pause();
    choose(Number(event.target.value));
  });
  if (part("study") !== null) {
    fill(part("study"), data.studies, (study) => study.name, state.study);
    onChange("study", (index) => chooseStudy(data.studies[index]));
  }
  onChange("agent", (index) => chooseAgent(state.study.agents[index]));
  onChange("episode", (index) => chooseEpisode(state.agent.episodes[index]));
  onChange("compare", (index) => {
    state.compared = [null, ...partners()][index];
    showStages();
  });
  part("time").addEventListener("input", (event) => scrub(event.target.valueAsNumber));
  part("play").addEventListener("click", toggle);
  part("back").addEventListener("click", () => scrub(state.time - 1));
  part("forward").addEventListener("click", () => scrub(state.time + 1));
  part("stages").addEventListener("keydown", onKey);
  for (const name of ["projection", "cosine"]) part(name).addEventListener("input", showStages);
  for (const trace of root.querySelectorAll(".trace")) {
    trace.addEventListener("click", (event) => {
      const box = trace.getBoundingClientRect();
      scrub(Math.floor(steps(state.episode) * (event.clientX - box.left) / box.width));
    });
  }
  part("legend-star").setAttribute("d", star(0.85));
  root.hidden = false;
  chooseStudy(state.study);
})();
