//! What the demo prints: numbered steps, and below each what happens and why.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::Value;

const WIDTH: usize = 100;
static STEP: AtomicU32 = AtomicU32::new(0);

pub fn title(text: &str) {
    println!("\n{text}\n{}", "=".repeat(text.chars().count()));
}

pub fn step(text: &str) {
    let number = STEP.fetch_add(1, Ordering::Relaxed) + 1;
    println!("\n{number}. {text}");
}

/// Running text, wrapped.
pub fn say(text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH - 3 {
            println!("   {line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    println!("   {line}");
}

/// Something that happened, and how long it took.
pub fn done(text: &str, took: Duration) {
    println!("   -> {text} ({})", duration(took));
}

/// A command to copy.
pub fn command(text: &str) {
    println!("     $ {}", text.replace('\n', "\n       "));
}

/// What a command answered.
pub fn output(text: &str) {
    for line in text.lines() {
        println!("     {line}");
    }
}

/// JSON with one member a line and plain lists on one, so that an answer fits the screen.
pub fn json(value: &Value) {
    output(&pretty(value, ""));
}

fn pretty(value: &Value, indent: &str) -> String {
    let inner = format!("{indent}  ");
    let block = |open: char, parts: Vec<String>, close: char| {
        format!("{open}\n{inner}{}\n{indent}{close}", parts.join(&format!(",\n{inner}")))
    };
    match value {
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| format!("\"{name}\": {}", pretty(value, &inner));
            block('{', members.iter().map(member).collect(), '}')
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            block('[', items.iter().map(|item| pretty(item, &inner)).collect(), ']')
        }
        plain => plain.to_string().replace("\",\"", "\", \""),
    }
}

/// A table whose first column is text and whose others are figures.
pub fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        println!("     {}", cells.collect::<Vec<_>>().join("   ").trim_end());
        if index == 0 {
            println!("     {}", "-".repeat(widths.iter().sum::<usize>() + 3 * (columns - 1)));
        }
    }
}

/// A duration with the unit a person would choose.
pub fn duration(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        _ if ms < 1.0 => format!("{ms:.2} ms"),
        _ if ms < 1000.0 => format!("{ms:.1} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}
