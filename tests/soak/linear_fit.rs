//! A straight line through points.

/// How steep the line is, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slope {
    /// The change of y with one x.
    pub(crate) value: f64,
    /// The standard error of the value.
    pub(crate) error: f64,
}

impl Slope {
    /// The least-squares line through the points; `None` for fewer than three, or when all have one x.
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Self> {
        if points.len() < 3 {
            return None;
        }
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if spread == 0.0 {
            return None;
        }
        let value = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        let residue = |(x, y): &(f64, f64)| (y - mean_y - value * (x - mean_x)).powi(2);
        let variance = points.iter().map(residue).sum::<f64>() / (count - 2.0);
        Some(Self { value, error: (variance / spread).sqrt() })
    }

    /// Whether the line rises by more than this, beyond what chance explains (two standard errors).
    pub(crate) fn exceeds(self, bound: f64) -> bool {
        self.value - 2.0 * self.error > bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_line_is_found_without_doubt() {
        let points: Vec<_> = (0..10).map(|x| (f64::from(x), 5.0 + 3.0 * f64::from(x))).collect();
        let slope = Slope::through(&points).unwrap();
        assert!((slope.value - 3.0).abs() < 1e-9 && slope.error < 1e-9, "{slope:?}");
        assert!(slope.exceeds(2.9) && !slope.exceeds(3.1));
    }

    #[test]
    fn noise_is_doubt_and_no_slope() {
        let points = [(0.0, 1.0), (1.0, -1.0), (2.0, 1.0), (3.0, -1.0), (4.0, 1.0)];
        let slope = Slope::through(&points).unwrap();
        assert!(slope.value.abs() < 1e-9 && slope.error > 0.3, "{slope:?}");
        // Known answer: y = 1, 2, 2 over x = 0, 1, 2 has the slope 1/2 with the error sqrt(1/12).
        let known = Slope::through(&[(0.0, 1.0), (1.0, 2.0), (2.0, 2.0)]).unwrap();
        assert!((known.value - 0.5).abs() < 1e-9, "{known:?}");
        assert!((known.error - (1.0_f64 / 12.0).sqrt()).abs() < 1e-9, "{known:?}");
    }

    #[test]
    fn too_few_points_are_no_line() {
        assert_eq!(Slope::through(&[(0.0, 0.0), (1.0, 1.0)]), None);
        assert_eq!(Slope::through(&[(1.0, 0.0), (1.0, 1.0), (1.0, 2.0)]), None);
    }
}
