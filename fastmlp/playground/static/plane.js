// The output over the plane, with the points on it.

import { css, drawOutput, drawSigned, fitted, targetColor, theme } from "./colors.js";

const CELLS = 96;

export class Plane {
  constructor(map, points) {
    this.map = map;
    this.points = points;
    this.showTest = false;
    this.discrete = false;
  }

  // Draw the output of the network, or the map of a unit in its place.
  draw(scene, view, unit) {
    if (unit) drawSigned(this.map, unit);
    else drawOutput(this.map, view.output, CELLS, scene.task, this.discrete);
  }

  drawPoints(scene) {
    const { context, width, height } = fitted(this.points);
    const { points, targets, training, extent } = scene;
    const radius = Math.max(2.2, width / 110);
    for (const wanted of this.showTest ? [1, 0] : [1]) {
      for (let i = 0; i < training.length; i++) {
        if (training[i] !== wanted) continue;
        const x = (points[2 * i] / extent + 1) * 0.5 * width;
        const y = (1 - points[2 * i + 1] / extent) * 0.5 * height;
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.fillStyle = css(targetColor(targets[i], scene.task, scene.range));
        context.strokeStyle = wanted ? theme.ring : theme.ink;
        context.lineWidth = 1;
        context.fill();
        context.stroke();
      }
    }
  }
}
