"use strict";
// Answers to browse: those of one model beside those of the model before treatment, for the same fill.
(() => {
  const data = JSON.parse(document.getElementById("script-data").textContent);
  const root = document.querySelector("[data-part='responses']");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const ON_A_PAGE = 8;
  let page = 0;

  const fillOf = (example) => [example.role, example.orientation, example.fill, example.place].join("\n");
  const before = new Map(
    data.examples.filter((example) => example.model === data.before).map((example) => [fillOf(example), example]),
  );
  const unique = (values) => [...new Set(values)];
  const named = (model) => (data.words[model] ? `${model}: ${data.words[model]}` : model);

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function offer(select, options, chosen) {
    select.replaceChildren(
      ...options.map(([value, text]) => {
        const option = element("option", "", text);
        option.value = value;
        return option;
      }),
    );
    select.value = chosen;
  }

  function answers(example, wanted) {
    if (wanted === "") return true;
    if (wanted === "intent") return example.intent;
    if (wanted !== "changed") return example.answer === wanted;
    const earlier = before.get(fillOf(example));
    return earlier !== undefined && earlier.answer !== example.answer;
  }

  function matches() {
    const [model, role, orientation, answer] = ["model", "role", "orientation", "answer"].map((n) => part(n).value);
    return data.examples.filter(
      (example) =>
        example.model === model &&
        (role === "" || example.role === role) &&
        (orientation === "" || example.orientation === orientation) &&
        answers(example, answer),
    );
  }

  function side(example, heading) {
    const made = element("div", `side ${example.answer}`);
    const intent = example.intent ? ", but states an intent to mislead" : "";
    made.append(element("h4", "", `${heading}: ${example.answer}${intent}`));
    made.append(element("p", "", example.text === "" ? "(nothing)" : example.text));
    return made;
  }

  function card(example) {
    const made = element("article", "response");
    const where = `${example.role}, ${data.orientations[example.orientation]}, fill ${example.fill}`;
    made.append(element("h3", "", where));
    made.append(element("p", "prompt", data.prompts[example.prompt]));
    const sides = element("div", "sides");
    const earlier = before.get(fillOf(example));
    if (example.model !== data.before) {
      if (earlier !== undefined) sides.append(side(earlier, `before, ${earlier.model}`));
      sides.append(side(example, `after, ${example.model}, seed ${example.seed}`));
    } else {
      sides.append(side(example, `${example.model}, seed ${example.seed}`));
    }
    made.append(sides);
    return made;
  }

  function show() {
    const found = matches();
    const pages = Math.max(1, Math.ceil(found.length / ON_A_PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const first = page * ON_A_PAGE;
    const shown = found.slice(first, first + ON_A_PAGE);
    part("list").replaceChildren(...shown.map(card));
    part("count").textContent =
      found.length === 0
        ? "No embedded answer is like this."
        : `Answers ${first + 1} to ${first + shown.length} of ${found.length} embedded ones.`;
    part("previous").disabled = page === 0;
    part("next").disabled = page === pages - 1;
  }

  const models = unique(data.examples.map((example) => example.model));
  const treated = models.find((model) => model !== data.before && model !== "base" && model !== "organism");
  offer(part("model"), models.map((model) => [model, named(model)]), treated ?? models[0]);
  const roles = unique(data.examples.map((example) => example.role));
  offer(part("role"), [["", "anybody"], ...roles.map((role) => [role, role])], roles.includes("burglar") ? "burglar" : "");
  offer(part("orientation"), [["", "both"], ...Object.entries(data.orientations)], "");
  for (const name of ["model", "role", "orientation", "answer"]) {
    part(name).addEventListener("change", () => {
      page = 0;
      show();
    });
  }
  for (const [name, step] of [["previous", -1], ["next", 1]]) {
    part(name).addEventListener("click", () => {
      page += step;
      show();
      root.scrollIntoView();
    });
  }
  show();
  root.hidden = false;
})();
