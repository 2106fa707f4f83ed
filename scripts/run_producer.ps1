# Builds the load simulator if needed and runs it (`ingestor produce`); arguments are passed on.
# The binary reads the environment and .env itself.
# If scripts are blocked: powershell -ExecutionPolicy Bypass -File scripts\run_producer.ps1
$ErrorActionPreference = 'Stop'
$root = Split-Path -Parent $PSScriptRoot
$binary = [IO.Path]::Combine($root, 'target', 'release', 'ingestor.exe')

# The repository root is where .env, data and log are.
Push-Location $root
try {
    if (Get-Command cargo -ErrorAction SilentlyContinue) {
        # The quotes keep PowerShell from taking the two dashes for its own.
        & cargo run --release --locked --quiet --bin ingestor '--' produce @args
    }
    elseif (Test-Path $binary) {
        Write-Warning 'cargo is missing, running the binary as it was last built'
        & $binary produce @args
    }
    else {
        [Console]::Error.WriteLine('cargo is missing and nothing has been built: install Rust and open a new shell')
        exit 1
    }
    exit $LASTEXITCODE
}
finally {
    Pop-Location
}
