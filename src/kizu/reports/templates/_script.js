"use strict";
(function () {
  var list = document.querySelector(".cards");
  if (!list) { return; }
  document.documentElement.classList.add("js");
  var cards = Array.prototype.slice.call(list.children);
  var buttons = Array.prototype.slice.call(document.querySelectorAll(".tools button"));
  var kind = document.getElementById("kind"), order = document.getElementById("order"), count = document.getElementById("count");
  var wanted = "all";
  function fits(card) {
    var said = card.dataset.verdict;
    var ok = wanted === "all" || said === wanted || (wanted === "mistakes" && card.dataset.mistake === "1");
    return ok && (!kind || kind.value === "" || card.dataset.defect === kind.value);
  }
  function show() {
    var shown = 0;
    cards.forEach(function (card) { card.hidden = !fits(card); if (!card.hidden) { shown += 1; } });
    count.textContent = shown + " of " + cards.length + " shown here";
  }
  function arrange() {
    var by = order.value;
    cards.sort(function (a, b) {
      if (by === "name") { return a.dataset.name.localeCompare(b.dataset.name) || a.dataset.rank - b.dataset.rank; }
      if (by === "high") { return b.dataset.score - a.dataset.score; }
      if (by === "low") { return a.dataset.score - b.dataset.score; }
      return a.dataset.rank - b.dataset.rank;
    });
    cards.forEach(function (card) { list.appendChild(card); });
  }
  buttons.forEach(function (button) {
    button.addEventListener("click", function () {
      wanted = button.dataset.show;
      buttons.forEach(function (other) { other.setAttribute("aria-pressed", String(other === button)); });
      show();
    });
  });
  if (kind) { kind.addEventListener("change", show); }
  order.addEventListener("change", arrange);
  show();
}());
